// Command local starts and stops the servers of `make up`, and prepares what
// the tests need.
//
//	local up      start PostgreSQL, Kafka and Temporal, and leave them running
//	local down    stop them
//	local clean   stop them and remove their data
//	local prepare fetch and build all that the tests need
//	local python  print the path of a Python that has the readers of the tests
//	local spark   install Spark and Delta Kernel, and print where they are
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/millrace-io/millrace/deploy/local"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch err := run(ctx, os.Args[1:]); {
	case err == nil:
	case errors.Is(err, errUsage):
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("wrong usage")

func run(ctx context.Context, args []string) error {
	const usage = "usage: local up|down|clean|prepare|python|spark [--dir DIR] [--pg VERSION] [--port-base PORT]"
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, usage)
		return errUsage
	}
	var o local.UpOptions
	fs := flag.NewFlagSet("local", flag.ContinueOnError)
	fs.StringVar(&o.Dir, "dir", local.DefaultDir, "folder of data, logs and the file env")
	fs.StringVar(&o.PG, "pg", local.DefaultPG, "major version of PostgreSQL, 14 to 18")
	fs.IntVar(&o.PortBase, "port-base", local.DefaultPortBase, "first of four ports")
	if err := fs.Parse(args[1:]); err != nil || fs.NArg() > 0 {
		fmt.Fprintln(os.Stderr, usage)
		return errUsage
	}
	switch args[0] {
	case "up":
		return up(ctx, o)
	case "down":
		return local.Down(ctx, o.Dir)
	case "clean":
		return local.Clean(ctx, o.Dir)
	case "prepare":
		return local.Prepare(ctx)
	case "python":
		path, err := local.Python(ctx)
		if err != nil {
			return err
		}
		fmt.Println(path)
		return nil
	case "spark":
		s, err := local.FindSpark(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("python %s\njars %s\nclasspath %s\n", s.Python, strings.Join(s.Jars, ","), s.Classpath)
		return nil
	}
	fmt.Fprintln(os.Stderr, usage)
	return errUsage
}

func up(ctx context.Context, o local.UpOptions) error {
	s, err := local.Up(ctx, o)
	if err != nil {
		return err
	}
	for _, pair := range s.Env() {
		fmt.Println(pair)
	}
	fmt.Printf("\nIn a shell: . %s\n", filepath.Join(o.Dir, "env"))
	return nil
}
