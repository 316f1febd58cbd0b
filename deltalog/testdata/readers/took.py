"""What a process takes, as Linux tells it (proc(5))."""

import os
import time

TICK = os.sysconf("SC_CLK_TCK")


class Took:
    """Watches a process from here on."""

    def __init__(self, pid):
        self.proc = "/proc/%d/" % pid
        # From here on VmHWM is the most memory that is resident.
        with open(self.proc + "clear_refs", "w") as f:
            f.write("5")
        self.used, self.began = self.cpu(), time.monotonic()

    def cpu(self):
        with open(self.proc + "stat") as f:
            words = f.read().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / TICK

    def end(self):
        """The seconds, the seconds of CPU, and the most memory in bytes."""
        took = {"seconds": time.monotonic() - self.began, "cpu": self.cpu() - self.used}
        with open(self.proc + "status") as f:
            kib = next(line for line in f if line.startswith("VmHWM:")).split()[1]
        took["peak"] = int(kib) * 1024
        return took
