package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/millrace-io/millrace/starter/inspect"
)

type tableChecksumCommand struct {
	URI       string        `arg:"" optional:"" name:"uri" help:"URI or path of the table."`
	Version   *int64        `xor:"at" placeholder:"N" help:"Version to look at; the newest unless given."`
	Timestamp string        `xor:"at" placeholder:"TIME" help:"Look at the version of this time, such as 2024-02-29T12:00:00Z."`
	Stdin     bool          `name:"stdin" help:"Answer requests on standard input, a line of JSON each."`
	Timeout   time.Duration `default:"10m" help:"With --stdin: how long one table may take."`
	Reader    bool          `hidden:"" help:"Answer requests in this process."`
}

// Help shows examples.
func (*tableChecksumCommand) Help() string {
	return `Two tables, or a table and what another reader makes of it, hold the same rows when the number of rows and the checksum agree; the order of rows and how they are stored do not count. The documentation of package deltalog/rowsum defines it.

With --stdin it prints {"ready":true}, then for each line {"name":…,"path":…}, perhaps with a "version", a line {"name":…,"rows":…,"checksum":…} or {"name":…,"error":…}. A table that cannot be read, that takes too long or more than 2 GiB of memory is an error, and the next one is read all the same.

Examples:

  millrace table checksum ./orders/latest --version 7
  echo '{"name":"orders","path":"./orders/latest"}' | millrace table checksum --stdin`
}

// Run prints the checksum of a table, or of those asked for.
func (c *tableChecksumCommand) Run(a *app) error {
	switch {
	case c.Stdin && (c.URI != "" || c.Version != nil || c.Timestamp != ""):
		return usageError("--stdin takes the tables from standard input")
	case c.Stdin && c.Timeout <= 0:
		return positive(c.Timeout)
	case c.Stdin && c.Reader:
		limitMemory(readerMemory)
		return answerAll(a.ctx, os.Stdin, a.stdout, func(ctx context.Context, line []byte) inspect.Answer {
			r, err := inspect.ParseRequest(line)
			if err != nil {
				return inspect.Refusal(r.Name, err)
			}
			return r.Do(ctx)
		})
	case c.Stdin:
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		s := &sumReader{program: self, timeout: c.Timeout}
		defer s.stop()
		return answerAll(a.ctx, os.Stdin, a.stdout, s.answer)
	case c.URI == "":
		return usageError("name a table, or ask for --stdin")
	}
	v, err := (&tableFlags{URI: c.URI, Version: c.Version, Timestamp: c.Timestamp}).open(a)
	if err != nil {
		return err
	}
	sum, err := v.Checksum(a.ctx)
	if err != nil {
		return err
	}
	if a.json {
		return a.print(sum)
	}
	t := columns(a.stdout)
	fmt.Fprintf(t, "rows\t%d\nchecksum\t%s\n", sum.Rows, sum.Checksum)
	flush(t)
	return nil
}

const (
	// readerMemory is what the process that reads tables may take, in bytes.
	readerMemory = 2 << 30
	// maxRequest is the longest request, in bytes.
	maxRequest = 1 << 20
)

// answerAll says that it is ready and answers every line until the input ends.
func answerAll(ctx context.Context, in io.Reader, out io.Writer, answer func(context.Context, []byte) inspect.Answer) error {
	if _, err := io.WriteString(out, "{\"ready\":true}\n"); err != nil {
		return fmt.Errorf("say ready: %w", err)
	}
	lines := bufio.NewReaderSize(in, maxRequest)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	for ctx.Err() == nil {
		line, err := lines.ReadSlice('\n')
		long := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = lines.ReadSlice('\n')
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read requests: %w", err)
		}
		switch {
		case long:
			if err := encoder.Encode(inspect.Refusal("", fmt.Errorf("request is longer than %d bytes", maxRequest))); err != nil {
				return fmt.Errorf("answer: %w", err)
			}
		case len(bytes.TrimSpace(line)) > 0:
			if err := encoder.Encode(answer(ctx, line)); err != nil {
				return fmt.Errorf("answer: %w", err)
			}
		}
		if err != nil {
			return nil
		}
	}
	return ctx.Err()
}

// sumReader has another process read the tables, because what a table does to
// its reader may end it: memory that it has not, a stack that overflows. It
// starts the process when one is needed.
type sumReader struct {
	program string
	timeout time.Duration
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	answers *bufio.Reader
	last    *lastWords
}

// answer passes a request on, and says what became of the process if it does
// not answer.
func (s *sumReader) answer(ctx context.Context, line []byte) inspect.Answer {
	r, err := inspect.ParseRequest(line)
	if err != nil {
		return inspect.Refusal(r.Name, err)
	}
	sum, err := s.ask(ctx, line)
	if err != nil {
		return inspect.Refusal(r.Name, err)
	}
	return inspect.Answer{Name: r.Name, Sum: &sum}
}

func (s *sumReader) ask(ctx context.Context, line []byte) (inspect.Sum, error) {
	if s.cmd == nil {
		if err := s.start(); err != nil {
			return inspect.Sum{}, err
		}
	}
	process := s.cmd.Process
	kill := func() { _ = process.Kill() }
	timer := time.AfterFunc(s.timeout, kill)
	unwatch := context.AfterFunc(ctx, kill)
	_, err := s.stdin.Write(append(bytes.TrimSpace(line), '\n'))
	var reply []byte
	if err == nil {
		reply, err = s.answers.ReadBytes('\n')
	}
	intime := timer.Stop()
	unwatch()
	if err != nil || !intime {
		s.stop()
		if !intime {
			return inspect.Sum{}, fmt.Errorf("it took longer than %s", s.timeout)
		}
		return inspect.Sum{}, fmt.Errorf("the process that read it ended: %s", s.last)
	}
	var got struct {
		inspect.Sum
		Error string `json:"error"`
	}
	if err := json.Unmarshal(reply, &got); err != nil {
		return inspect.Sum{}, fmt.Errorf("read the answer: %w", err)
	}
	if got.Error != "" {
		return inspect.Sum{}, errors.New(got.Error)
	}
	return got.Sum, nil
}

// start starts this program once more, as a reader, and waits until it is ready.
func (s *sumReader) start() error {
	cmd := exec.Command(s.program, "table", "checksum", "--stdin", "--reader")
	s.last = &lastWords{}
	cmd.Stderr = s.last
	var err error
	if s.stdin, err = cmd.StdinPipe(); err != nil {
		return fmt.Errorf("start a reader: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start a reader: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start a reader: %w", err)
	}
	s.cmd, s.answers = cmd, bufio.NewReader(out)
	if _, err := s.answers.ReadBytes('\n'); err != nil {
		s.stop()
		return fmt.Errorf("start a reader: it ended: %s", s.last)
	}
	return nil
}

// stop ends the process.
func (s *sumReader) stop() {
	if s.cmd == nil {
		return
	}
	_ = s.stdin.Close()
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}

// lastWords keeps what a program says first on its standard error.
type lastWords struct{ text []byte }

// Write keeps the first 4 KiB.
func (l *lastWords) Write(b []byte) (int, error) {
	l.text = append(l.text, b[:min(len(b), 4096-len(l.text))]...)
	return len(b), nil
}

// String returns the line that says why the program ended, or else the first.
func (l *lastWords) String() string {
	first := ""
	for line := range strings.Lines(string(l.text)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "fatal error: ") || strings.HasPrefix(line, "panic: ") {
			return line
		}
		if first == "" {
			first = line
		}
	}
	if first == "" {
		return "it was killed"
	}
	return first
}
