package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files")

// TestFaultsOfAFile reads testdata/faults/*.yaml and compares all that is said
// about them with the .txt beside. In unsupported.yaml alone keys are refused
// that no worker acts on.
func TestFaultsOfAFile(t *testing.T) {
	files, err := filepath.Glob("testdata/faults/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no test files")
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var refused []string
			if filepath.Base(name) == "unsupported.yaml" {
				refused = unsupported
			}
			_, err = parse(name, b, refused)
			if err == nil {
				t.Fatal("the file was accepted")
			}
			golden(t, strings.TrimSuffix(name, ".yaml")+".txt", err.Error()+"\n")
		})
	}
}

// TestFileWithDefaults compares the resolved form of testdata/valid/*.yaml.
func TestFileWithDefaults(t *testing.T) {
	files, err := filepath.Glob("testdata/valid/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no test files")
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			f, err := Load(name)
			if err != nil {
				t.Fatal(err)
			}
			b, err := json.MarshalIndent(f, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, strings.TrimSuffix(name, ".yaml")+".json", string(b)+"\n")
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it)\n--- got\n%s\n--- want\n%s", name, got, want)
	}
}

// canary is a secret that no message may repeat.
const canary = "hunter2canary"

func TestFaultsNeverRepeatASecret(t *testing.T) {
	for _, text := range []string{
		"databases: {s: {password: CANARY}}",
		"lake: {uri: s3://b, secret_key: CANARY}",
		"lake:\n  access_key: CANARY\n  secret_key: env:A",
		"lake: {endpoint: 'https://u:CANARY@h'}",
		"lake: s3://u:CANARY@h/b",
		"databases: {s: {pasword: CANARY}}",
		"databases: {s: {PASSWORD: 'CANARY', tables: 5}}",
		"databases: {s: {passphrase: CANARY}}",
		"databases: {s: {url: 'postgres://u:CANARY@h/d', tables: [a]}}",
		"databases: {s: {url: 'postgres://u@h/d?password=CANARY'}}",
		"databases: {s: {url: 'postgres://u@h/d?sslpassword=CANARY&foo=1'}}",
		"databases: {s: {url: 'postgres://u:CANARY%zz@h/d'}}",
		"databases: {s: {url: 'host=h user=u password=CANARY'}}",
		"databases: {s: {url: 'mysql://u:CANARY@h/d'}}",
		"databases: {s: {urll: 'postgres://u:CANARY@h/d'}}",
		"databases:\n  s:\n    password: |\n      CANARY\n    x: 1",
		"databases:\n  s:\n    password: >-\n      a\n      CANARY\n    x: 1",
		"databases:\n  s:\n    password:\n      CANARY\n    x: 1",
		"databases:\n  s:\n    password:\n      CANARY",
		"databases:\n  s:\n    password: \"CANARY",
		"databases:\n  s:\n    password: env:CANARY-is-it\n    x: 1",
		"databases:\n  s:\n    password: env:A\n    password: CANARY\n",
		"databases:\n  s:\n    password: &p CANARY\n    pool: *p\n",
		"databases:\n  s:\n    password: *CANARY\n    x: 1\n",
		"databases:\n  s:\n    password:\n      *CANARY\n    x: 1\n",
		"databases:\n  s:\n    password: !CANARY x\n    x: 1\n",
		"databases:\n  s:\n    password: !x CANARY\n    x: 1\n",
		"databases:\n  s:\n    password:\n      !CANARY x\n    x: 1\n",
		"databases:\n  s:\n    password:\n      !x CANARY\n    x: 1\n",
		"databases:\n  s:\n    password: &CANARY x\n    x: 1\n",
		"databases:\n  s:\n    password:\n      &CANARY x\n    x: 1\n",
		"databases:\n  s:\n    password: &CANARY\n    x: 1\n",
		"databases:\n  s:\n    password: !CANARY\n",
		"databases:\n  s:\n    pasword: *CANARY\n",
		"databases: {s: {password: *CANARY}}",
		"databases: {s: {password: '*x', pwd: !CANARY x}}",
		"databases: {s: {password: @CANARY}}",
		"databases: {s: {password: %CANARY}}",
		"databases: {s: {password: `CANARY}}",
		"databases:\n  s:\n    password:\n      @CANARY\n",
		"databases:\n  s:\n    password:\n      `CANARY\n",
		"databases:\n  s:\n    password:\n      \"CANARY\n",
		"databases:\n  s:\n    password: CANARY: x\n",
		"databases:\n  s:\n    password: [CANARY]\n",
		"databases:\n  s:\n    password:\n    - CANARY\n",
		"databases:\n  s:\n    password:\n      a: CANARY\n",
		"databases:\n  s:\n    password:\n      a: 1\n      CANARY: b\n",
		"databases:\n  s:\n    password: {a: CANARY}\n",
		"databases: {s: {password: CANARY, tables: [",
		"kafka: {sasl_token: CANARY}",
		"kafka: {brokers: ['u:CANARY@h:9092']}",
		"kafka: {brokers: ['kafka://u:CANARY@h:9092']}",
		"lake: https://u:CANARY@h/b",
		"temporal: {api_key: CANARY}",
		"temporal: {api-key: CANARY}",
	} {
		_, err := Parse("f", []byte(strings.ReplaceAll(text, "CANARY", canary)))
		if err == nil {
			t.Errorf("accepted: %s", text)
			continue
		}
		if strings.Contains(err.Error(), canary) {
			t.Errorf("the secret is repeated for\n%s\n%s", text, err)
		}
	}
}

func TestDatabaseHoldsNoSecretAndFitsAPayload(t *testing.T) {
	f, err := Load("testdata/valid/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	d, err := f.Database("shop")
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var back Database
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(back)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, again) {
		t.Errorf("JSON does not round-trip:\n%s\n%s", b, again)
	}
}

func TestConfigurationTooLargeForAPayload(t *testing.T) {
	var b strings.Builder
	b.WriteString("allow_insecure: true\nkafka: {brokers: [127.0.0.1:9092]}\nlake: file:///l\ndatabases:\n  big:\n    url: postgres://u@127.0.0.1/d\n    tables:\n")
	for i := range 20000 {
		fmt.Fprintf(&b, "    - public.table_number_%06d\n", i)
	}
	_, err := Parse("f", []byte(b.String()))
	if err == nil || !strings.Contains(err.Error(), "more than the 256 KiB") {
		t.Fatalf("got %v", err)
	}
}

func TestUnknownDatabaseNamesTheNearest(t *testing.T) {
	f, err := Load("testdata/valid/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Database("ordrs")
	if !errors.Is(err, ErrUnknownDatabase) || !strings.Contains(err.Error(), `"orders"`) {
		t.Fatalf("got %v", err)
	}
}

func TestSecretsAreResolvedWhereTheyAre(t *testing.T) {
	t.Setenv("FLEET_TEST_SECRET", "one")
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("two\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[Secret]string{"": "", "env:FLEET_TEST_SECRET": "one", Secret("file:" + path): "two"} {
		got, err := ref.Resolve()
		if err != nil || got != want {
			t.Errorf("%s: got %q, %v", ref, got, err)
		}
	}
	for _, ref := range []Secret{"env:FLEET_TEST_NOT_SET", "file:/does/not/exist", "plain"} {
		if _, err := ref.Resolve(); !errors.Is(err, ErrSecret) {
			t.Errorf("%s: got %v", ref, err)
		}
	}
}

func TestDurations(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"500ms": 500 * time.Millisecond, "5s": 5 * time.Second, "7d": 7 * 24 * time.Hour, "1h30m": 90 * time.Minute,
	} {
		got, err := parseDuration(s)
		if err != nil || got != want {
			t.Errorf("%s: got %s, %v", s, got, err)
		}
		if back := formatDuration(want); back != s {
			t.Errorf("%s: written as %s", s, back)
		}
	}
	for _, s := range []string{"", "5", "d", "-1d", "5 s", "1.5d", "99999d"} {
		if _, err := parseDuration(s); err == nil {
			t.Errorf("%q was accepted", s)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/faults/*.yaml", "testdata/valid/*.yaml"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := Parse("f", b)
		if (file == nil) == (err == nil) {
			t.Fatal("neither a file nor faults")
		}
		if err != nil && err.Error() == "" {
			t.Fatal("faults without a text")
		}
	})
}
