package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/deploy/local"
)

// bucket makes a bucket and has the lake in it, reached with keys that the fleet
// file refers to. The command line has them in its environment.
func (s *site) bucket(name string) *local.S3 {
	s.t.Helper()
	server := local.SharedS3(s.t)
	name += "-" + s.region
	if err := server.MakeBucket(name); err != nil {
		s.t.Fatal(err)
	}
	s.env = append(s.env,
		"LAKE_ACCESS_KEY="+server.AccessKey, "LAKE_SECRET_KEY="+server.SecretKey,
		"AWS_ACCESS_KEY_ID="+server.AccessKey, "AWS_SECRET_ACCESS_KEY="+server.SecretKey,
		"AWS_ENDPOINT_URL_S3="+server.Endpoint, "AWS_REGION="+server.Region)
	s.inBucket(name, server.Endpoint, "LAKE_SECRET_KEY")
	return server
}

// inBucket writes the fleet file with its lake in a bucket.
func (s *site) inBucket(name, endpoint, secret string) {
	s.lake = fmt.Sprintf(`{uri: s3://%s/the lake, endpoint: %q, region: us-east-1, access_key: env:LAKE_ACCESS_KEY, secret_key: env:%s}`, name, endpoint, secret)
	s.write()
}

func TestALakeInABucketLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.bucket("lake")
	n := seed(t)
	rng := rand.New(rand.NewPCG(n, 0))
	src := newShop(s, "bucket")
	stop := traffic(src, n, 100)
	w := s.worker("a")
	s.must("apply")
	for range 3 {
		time.Sleep(time.Second + time.Duration(rng.Int64N(int64(time.Second))))
		w.kill()
		w = s.worker("a")
	}
	s.must("wait", src.name, "--until", "live", "--timeout", "60s")
	stop()
	s.caughtUp(src.name)
	s.verified(src.name)
	for _, table := range s.status(src.name).Tables {
		if !strings.HasPrefix(table.History, "s3://lake-"+s.region+"/the%20lake/") {
			t.Errorf("%s lies at %s", table.Name, table.History)
		}
		s.must("table", "info", table.History)
	}
	s.silentAbout("millrace-secret")
}

func TestABucketThatCannotBeWrittenIsSaidInOneSentence(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	server := s.bucket("bad")
	s.env = append(s.env, "WRONG_SECRET_KEY=wrong-and-secret")
	healthy := s.add("healthy")
	healthy.exec(`CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100)`)
	s.worker("a")
	s.must("apply")
	s.must("wait", healthy.name, "--until", "live", "--timeout", "60s")
	good := "bad-" + s.region
	for name, c := range map[string]struct {
		bucket, endpoint, secret string
		words                    []string
	}{
		"no bucket":    {"never-made", server.Endpoint, "LAKE_SECRET_KEY", []string{"is parked", "no such bucket", "never-made", "millrace resume"}},
		"wrong key":    {good, server.Endpoint, "WRONG_SECRET_KEY", []string{"is parked", "no valid credentials", "millrace resume"}},
		"no variable":  {good, server.Endpoint, "NEVER_SET", []string{"is parked", "NEVER_SET", "millrace resume"}},
		"no server":    {good, "http://" + freeAddress(t), "LAKE_SECRET_KEY", []string{"the store is not available"}},
		"other server": {good, "http://" + s.stack.Temporal.Address, "LAKE_SECRET_KEY", []string{"the store is not available"}},
	} {
		t.Run(name, func(t *testing.T) {
			src := s.add(name)
			src.exec(`CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100)`)
			s.inBucket(c.bucket, c.endpoint, c.secret)
			s.refused(1, 40*time.Second, append(c.words, src.name), "apply", src.name, "--timeout", "15s")
			if left := src.number(`SELECT count(*) FROM pg_publication`); left != 0 {
				t.Error("something was left at the source")
			}
			s.inBucket(good, server.Endpoint, "LAKE_SECRET_KEY")
			s.must("apply", src.name)
			s.must("wait", src.name, "--until", "live", "--timeout", "60s")
		})
	}
	healthy.exec(`INSERT INTO t SELECT generate_series(1001, 1100)`)
	s.caughtUp(healthy.name)
	s.verified(healthy.name)
	s.silentAbout("wrong-and-secret")
}
