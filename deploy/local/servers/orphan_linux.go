package main

import "syscall"

func withOrphanSignal(s syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: s, Setpgid: true}
}
