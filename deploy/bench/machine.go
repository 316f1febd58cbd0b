package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/deploy/local"
)

// Machine is where and with what was measured.
type Machine struct {
	Cores int `json:"cores"`
	// CPUModel is as the system calls it; "unknown CPU" where it does not.
	CPUModel string `json:"cpu_model"`
	// MemoryBytes is zero where it is not known.
	MemoryBytes int64  `json:"memory_bytes"`
	OS          string `json:"os"`
	Go          string `json:"go"`
	PostgreSQL  string `json:"postgresql"`
	// Commit is what was measured; empty outside a repository. Changed tells
	// that files differed from it.
	Commit  string `json:"commit,omitempty"`
	Changed bool   `json:"changed,omitempty"`
}

// survey looks at the machine. It starts PostgreSQL, the one that benchmarks
// start, and stops it.
func survey(ctx context.Context) (Machine, error) {
	m := Machine{
		Cores:    runtime.NumCPU(),
		CPUModel: "unknown CPU",
		OS:       runtime.GOOS + "/" + runtime.GOARCH,
		Go:       runtime.Version(),
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if model := entry(string(b), "model name"); model != "" {
			m.CPUModel = model
		}
	}
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		kib, _, _ := strings.Cut(entry(string(b), "MemTotal"), " ")
		if n, err := strconv.ParseInt(kib, 10, 64); err == nil {
			m.MemoryBytes = n << 10
		}
	}
	if out, err := exec.CommandContext(ctx, "git", "rev-parse", "--short=10", "HEAD").Output(); err == nil {
		m.Commit = strings.TrimSpace(string(out))
		out, err := exec.CommandContext(ctx, "git", "status", "--porcelain").Output()
		m.Changed = err == nil && len(out) > 0
	}
	pg, err := local.StartPostgres(ctx, local.PostgresOptions{})
	if err != nil {
		return Machine{}, err
	}
	m.PostgreSQL = pg.Version
	if err := pg.Close(); err != nil {
		return Machine{}, fmt.Errorf("stop PostgreSQL: %w", err)
	}
	return m, nil
}

// entry returns the value of the first line "name : value"; empty where there
// is none.
func entry(text, name string) string {
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// quiet is the share of the CPUs in use below which a machine is quiet.
const quiet = 0.1

// busy is the share of this machine's CPUs that is in use, from 0 to 1; negative
// where the system does not say. It is the least over some seconds, for what the
// last round left behind takes a moment to end.
func busy(ctx context.Context) float64 {
	least := -1.0
	for range 5 {
		share := inUse(ctx, time.Second)
		if share < 0 {
			break
		}
		if least < 0 || share < least {
			least = share
		}
		if least < quiet {
			break
		}
	}
	return least
}

// inUse is the share of the CPUs in use over a time; negative where the system
// does not say.
func inUse(ctx context.Context, over time.Duration) float64 {
	idle, all, ok := ticks()
	if !ok {
		return -1
	}
	select {
	case <-ctx.Done():
		return -1
	case <-time.After(over):
	}
	idle2, all2, ok := ticks()
	if !ok || all2 <= all {
		return -1
	}
	return 1 - (idle2-idle)/(all2-all)
}

// ticks reads how long all CPUs have been idle and how long they have been, in
// ticks of the system.
func ticks() (idle, all float64, ok bool) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, false
	}
	return readTicks(string(b))
}

// readTicks reads the first line of /proc/stat (proc_stat(5)): user, nice,
// system, idle, iowait, irq, softirq, steal. Guests are counted in user.
func readTicks(stat string) (idle, all float64, ok bool) {
	line, _, _ := strings.Cut(stat, "\n")
	words := strings.Fields(line)
	if len(words) < 9 || words[0] != "cpu" {
		return 0, 0, false
	}
	for i, word := range words[1:9] {
		v, err := strconv.ParseFloat(word, 64)
		if err != nil {
			return 0, 0, false
		}
		all += v
		if i == 3 || i == 4 {
			idle += v
		}
	}
	return idle, all, true
}
