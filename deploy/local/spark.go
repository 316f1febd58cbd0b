package local

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// ErrNoJava means that this machine lacks what Spark and Delta Kernel need.
var ErrNoJava = errors.New("Spark and Delta Kernel need Java 17 or later with javac, and Maven: install them (on Debian: apt-get install openjdk-17-jdk-headless maven)")

// Spark is Apache Spark and Delta Kernel on this machine, ready to be started.
type Spark struct {
	// Python is an interpreter that has pyspark.
	Python string
	// Jars are what Spark needs besides its own for Delta tables.
	Jars []string
	// Classpath is where javac and java find Delta Kernel and what it needs.
	Classpath string
}

// FindSpark returns Spark and Delta Kernel, which are installed into the user's
// cache folder on first use: packages of python/spark.txt, jars of
// java/pom.xml, some 700 MB. It returns ErrNoPython or ErrNoJava where there is
// nothing to begin with.
func FindSpark(ctx context.Context) (*Spark, error) {
	for _, program := range []string{"java", "javac", "mvn"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w (%s is not on PATH)", ErrNoJava, program)
		}
	}
	dir, err := jars(ctx)
	if err != nil {
		return nil, err
	}
	python, err := pythonWith(ctx, "spark.txt", "installing Spark for the tests, once: some 600 MB")
	if err != nil {
		return nil, err
	}
	all, err := filepath.Glob(filepath.Join(dir, "*.jar"))
	if err != nil || len(all) == 0 {
		return nil, errors.Join(fmt.Errorf("no jars in %s: remove the folder", dir), err)
	}
	s := &Spark{Python: python, Classpath: strings.Join(all, string(os.PathListSeparator))}
	for _, jar := range all {
		if name := filepath.Base(jar); strings.HasPrefix(name, "delta-") || strings.HasPrefix(name, "unitycatalog-") {
			s.Jars = append(s.Jars, jar)
		}
	}
	slices.Sort(s.Jars)
	return s, nil
}

// jars returns a folder that holds the jars of java/pom.xml and what they
// depend on. Of several processes one fetches them, the others wait.
func jars(ctx context.Context) (string, error) {
	place, err := findPlace()
	if err != nil {
		return "", err
	}
	pom := filepath.Join(place.repo, "deploy", "local", "java", "pom.xml")
	b, err := os.ReadFile(pom)
	if err != nil {
		return "", fmt.Errorf("read which jars to fetch: %w", err)
	}
	sum := sha256.Sum256(b)
	dir := filepath.Join(place.cache, "java-"+hex.EncodeToString(sum[:6]))
	complete := filepath.Join(dir, "complete")
	if _, err := os.Stat(complete); err == nil {
		return dir, nil
	}
	unlock, err := lockFile(ctx, dir+".lock", "waiting for another process that fetches jars")
	if err != nil {
		return "", fmt.Errorf("fetch jars: %w", err)
	}
	defer unlock()
	if _, err := os.Stat(complete); err == nil {
		return dir, nil
	}

	progress("fetching Delta's jars from Maven for the tests, once: some 120 MB")
	started := time.Now()
	if err := os.RemoveAll(dir); err != nil {
		return "", fmt.Errorf("remove half fetched jars: %w", err)
	}
	repository := filepath.Join(dir, "repository")
	cmd := exec.CommandContext(ctx, "mvn", "--batch-mode", "--quiet", "--file", pom,
		"-Dmaven.repo.local="+repository, "-DoutputDirectory="+dir,
		"org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetch jars: %s: %w\n%s", strings.Join(cmd.Args, " "), err, tail(out, 4000))
	}
	if err := errors.Join(os.RemoveAll(repository), os.WriteFile(complete, nil, 0o644)); err != nil {
		return "", fmt.Errorf("fetch jars: %w", err)
	}
	progress("fetched jars in %s", time.Since(started).Round(time.Second))
	return dir, nil
}
