package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/starter/inspect"
)

// numbers makes a table of the numbers from 0 to n-1, which version 1 appends.
func numbers(t *testing.T, n int) (dir string, file string) {
	t.Helper()
	dir = t.TempDir()
	st, err := store.OpenURI(dir)
	if err != nil {
		t.Fatal(err)
	}
	sch := &schema.Schema{Fields: []schema.Field{{Name: "n", Type: schema.Type{Kind: schema.Long}, Nullable: true}}}
	table, err := deltalog.Create(t.Context(), st, deltalog.CreateOptions{Schema: sch})
	if err != nil {
		t.Fatal(err)
	}
	w, err := table.NewFile(t.Context(), deltalog.FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b := datafile.NewBatch(sch)
	for i := range n {
		b.Cols[0].AppendInt(int64(i))
	}
	if err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	f, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, won, err := table.Commit(t.Context(), &deltalog.Commit{Operation: "WRITE", Add: []*deltalog.File{f}}); err != nil || !won {
		t.Fatal(won, err)
	}
	return dir, filepath.Join(dir, f.Path)
}

// The numbers from 0 to 9, by another program.
const tenNumbers = "67a5a688217f80c9"

// server is `millrace table checksum --stdin` in a process of its own.
type server struct {
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Scanner
}

func serve(t *testing.T, flags ...string) *server {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"table", "checksum", "--stdin"}, flags...)...)
	cmd.Env = append(os.Environ(), beMillrace+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, in: in, out: bufio.NewScanner(out)}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the end of its input ended it with %v", err)
		}
	})
	if line := s.line(); line != `{"ready":true}` {
		t.Fatalf("it began with %q", line)
	}
	return s
}

func (s *server) line() string {
	if !s.out.Scan() {
		s.t.Fatalf("it says no more: %v", s.out.Err())
	}
	return s.out.Text()
}

func (s *server) ask(line string) string {
	s.t.Helper()
	if _, err := io.WriteString(s.in, line+"\n"); err != nil {
		s.t.Fatal(err)
	}
	return s.line()
}

func request(name, path string) string {
	b, err := json.Marshal(inspect.Request{Name: name, Path: path})
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestChecksumOfATable(t *testing.T) {
	dir, _ := numbers(t, 10)
	code, stdout, stderr := millrace(t, "table", "checksum", dir)
	if code != exitOK || stderr != "" || stdout != "rows      10\nchecksum  "+tenNumbers+"\n" {
		t.Errorf("exit status %d\n%s%s", code, stdout, stderr)
	}
	code, stdout, stderr = millrace(t, "table", "checksum", dir, "--version", "0", "--json")
	if code != exitOK || stderr != "" || stdout != "{\n  \"rows\": 0,\n  \"checksum\": \"0000000000000000\"\n}\n" {
		t.Errorf("exit status %d\n%s%s", code, stdout, stderr)
	}
}

func TestChecksumsAnswerEveryLine(t *testing.T) {
	dir, _ := numbers(t, 10)
	s := serve(t)
	whole := `"rows":10,"checksum":"` + tenNumbers + `"}`
	for _, test := range []struct{ line, want string }{
		{request("a", dir), `{"name":"a",` + whole},
		{request("<b>\n", "file://"+dir), `{"name":"<b>\n",` + whole},
		{`{"name":"c","path":"` + dir + `","version":0}`, `{"name":"c","rows":0,"checksum":"0000000000000000"}`},
		{`{"name":"d","path":"` + dir + `","version":1,"more":[1]}`, `{"name":"d",` + whole},
		{`{"name":"e","path":"` + dir + `","version":null}`, `{"name":"e",` + whole},
		{`{"name":"f","path":"` + dir + `","version":9}`, `"error":"open ` + dir + `: version 9: no such version`},
		{`{"name":"g","path":"` + dir + `","version":-1}`, `"error":"version -1: versions begin with 0"`},
		{request("h", "/does/not/exist"), `{"name":"h","error":"open /does/not/exist`},
		{request("i", ""), `{"name":"i","error":"request has no path"}`},
		{`no JSON`, `{"name":"","error":"request is not`},
		{`{"name":"j","path":7}`, `{"name":"j","error":"request is not`},
		{`"` + strings.Repeat("x", maxRequest) + `"`, `{"name":"","error":"request is longer than`},
		{"\n" + request("k", dir), `{"name":"k",` + whole},
	} {
		if got := s.ask(test.line); !strings.Contains(got, test.want) {
			t.Errorf("%.80s\ngot  %s\nwant %s", test.line, got, test.want)
		}
	}
}

func TestChecksumsGoOnAfterATableThatNeverEnds(t *testing.T) {
	dir, _ := numbers(t, 10)
	endless, file := numbers(t, 10)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(file, 0o600); err != nil { // opening it waits for a writer
		t.Fatal(err)
	}
	s := serve(t, "--timeout", "2s")
	if got := s.ask(request("endless", endless)); got != `{"name":"endless","error":"it took longer than 2s"}` {
		t.Errorf("got %s", got)
	}
	if got := s.ask(request("next", dir)); !strings.Contains(got, tenNumbers) {
		t.Errorf("got %s", got)
	}
}

func TestChecksumsGoOnAfterTheirReaderEnds(t *testing.T) {
	program := filepath.Join(t.TempDir(), "reader")
	script := `#!/bin/sh
echo '{"ready":true}'
while read -r line; do
  case $line in
  *killed*) kill -9 $$ ;;
  *memory*) printf 'runtime: so much\nfatal error: out of memory\n\ngoroutine 1\n' >&2; exit 2 ;;
  *) echo '{"name":"x","rows":1,"checksum":"0000000000000001"}' ;;
  esac
done
`
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	s := &sumReader{program: program, timeout: time.Minute}
	defer s.stop()
	for _, test := range []struct{ name, want string }{
		{"killed", "the process that read it ended: it was killed"},
		{"x", ""},
		{"memory", "the process that read it ended: fatal error: out of memory"},
		{"killed", "the process that read it ended: it was killed"},
		{"x", ""},
	} {
		a := s.answer(t.Context(), []byte(request(test.name, "/")))
		if a.Error != test.want || (test.want == "") != (a.Sum != nil) {
			t.Errorf("%s: %+v", test.name, a)
		}
	}
}

func TestReaderThatTakesTooMuchMemoryEnds(t *testing.T) {
	if os.Getenv(beMillrace) == "memory" {
		limitMemory(256 << 20)
		kept := make([][]byte, 0, 64)
		for range cap(kept) {
			b := make([]byte, 64<<20)
			for i := range b {
				b[i] = 1
			}
			kept = append(kept, b)
		}
		fmt.Println("it has", len(kept))
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), beMillrace+"=memory")
	var words lastWords
	cmd.Stderr = &words
	out, err := cmd.Output()
	if err == nil || !strings.Contains(words.String(), "out of memory") {
		t.Errorf("it ended with %v, saying %q and %q", err, words.String(), out)
	}
}
