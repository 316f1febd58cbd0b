//go:build !linux

package main

import "syscall"

func withOrphanSignal(syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
