package fleet

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

var (
	regionName   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	poolName     = regionName
	databaseName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,39}$`)
	topicPrefix  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)
)

// file reads the whole file. What it returns counts only where no fault was
// noted.
func (r *reader) file() *File {
	f := &File{
		Region:   "local",
		Temporal: Temporal{Address: "127.0.0.1:7233", Namespace: "default", HeartbeatTimeout: 30 * time.Second},
		Kafka:    Kafka{TopicPrefix: "millrace", Partitions: 6, Retention: 7 * 24 * time.Hour, Replication: 3, MinInSync: 2},
	}
	if r.doc == nil {
		return f
	}
	shared := Database{Pool: "default", OnWALBudget: OnBudgetPark}
	var databases ast.Node
	if !r.object("", r.doc, []field{
		{"region", r.named(&f.Region, regionName, "lower-case letters, digits and -, at most 32")},
		{"temporal", func(p string, n ast.Node) { r.temporal(p, n, &f.Temporal) }},
		{"kafka", func(p string, n ast.Node) { r.kafka(p, n, &f.Kafka) }},
		{"allow_insecure", r.flag(&f.AllowInsecure)},
		{"lake", r.lake(f)},
		{"defaults", func(p string, n ast.Node) { r.object(p, n, r.shared("", &shared)) }},
		{"databases", func(_ string, n ast.Node) { databases = n }},
	}) {
		return f
	}
	if !r.given("lake") {
		r.faultAt("lake", "missing; say where the tables go, such as lake: file:///var/lib/lake or lake: s3://bucket/prefix")
	}
	if !r.given("kafka") {
		r.faultAt("kafka", "missing; say where the brokers are, such as kafka: {brokers: [127.0.0.1:9092]}")
	}
	r.security(f)
	// Databases take defaults from sections that may stand below them.
	if databases != nil {
		r.databases("databases", databases, f, &shared)
	}
	return f
}

func (r *reader) temporal(p string, n ast.Node, t *Temporal) {
	r.object(p, n, []field{
		{"address", r.address(&t.Address)},
		{"namespace", r.text(&t.Namespace)},
		{"heartbeat_timeout", r.duration(&t.HeartbeatTimeout, time.Second, 10*time.Minute)},
		{"tls", r.tls(&t.TLS)},
	})
	if t.Namespace == "" {
		r.faultAt(join(p, "namespace"), "empty; Temporal's own is called default")
	}
}

func (r *reader) kafka(p string, n ast.Node, k *Kafka) {
	isObject := r.object(p, n, []field{
		{"brokers", r.texts(func(p string, at *token.Token, s string) {
			if why := badAddress(s); why != "" {
				r.fault(p, at, "%s", why)
				return
			}
			r.places[p] = at
			k.Brokers = append(k.Brokers, s)
		})},
		{"topic_prefix", r.named(&k.TopicPrefix, topicPrefix, "letters, digits, '.', '_' and '-', at most 100")},
		{"partitions", r.number(&k.Partitions, 1, 1000)},
		{"retention", r.duration(&k.Retention, time.Hour, 3650*24*time.Hour)},
		{"replication", r.number(&k.Replication, 1, 15)},
		{"min_insync", r.number(&k.MinInSync, 1, 15)},
		{"tls", r.tls(&k.TLS)},
	})
	if isObject && len(k.Brokers) == 0 && !r.faulty(join(p, "brokers")) {
		r.faultAt(join(p, "brokers"), "missing; list at least one broker as host:port")
	}
}

// faulty tells whether a fault was noted for path or something in it.
func (r *reader) faulty(path string) bool {
	return slices.ContainsFunc(r.faults, func(f *Fault) bool { return strings.HasPrefix(f.Path, path) })
}

func (r *reader) pool(into *string) func(string, ast.Node) {
	return r.named(into, poolName, "lower-case letters, digits and -, at most 32")
}

// named reads a string of a given form.
func (r *reader) named(into *string, form *regexp.Regexp, allowed string) func(string, ast.Node) {
	return func(p string, n ast.Node) {
		var s string
		before := len(r.faults)
		r.text(&s)(p, n)
		if len(r.faults) > before {
			return
		}
		if !form.MatchString(s) {
			r.fault(p, n.GetToken(), "%q is not a name; use %s", s, allowed)
			return
		}
		*into = s
	}
}

// address reads host:port.
func (r *reader) address(into *string) func(string, ast.Node) {
	return func(p string, n ast.Node) {
		var s string
		before := len(r.faults)
		r.text(&s)(p, n)
		if len(r.faults) > before {
			return
		}
		if why := badAddress(s); why != "" {
			r.fault(p, n.GetToken(), "%s", why)
			return
		}
		*into = s
	}
}

// badAddress says what is wrong with an address; empty where nothing is.
func badAddress(s string) string {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || strings.ContainsAny(s, "/@ ") {
		return "an address is host:port, such as 127.0.0.1:9092"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Sprintf("port %q is not a number from 1 to 65535", port)
	}
	return ""
}

// tls reads a section of file names.
func (r *reader) tls(into **TLS) func(string, ast.Node) {
	return func(p string, n ast.Node) {
		t := &TLS{}
		r.object(p, n, []field{
			{"ca", r.path(&t.CA)},
			{"cert", r.path(&t.Cert)},
			{"key", r.path(&t.Key)},
			{"server_name", r.text(&t.ServerName)},
		})
		if (t.Cert == "") != (t.Key == "") && r.given(join(p, "cert")) != r.given(join(p, "key")) {
			r.faultAt(p, "cert and key go together: one is missing")
		}
		*into = t
	}
}

// path reads an absolute path of a file.
func (r *reader) path(into *string) func(string, ast.Node) {
	return func(p string, n ast.Node) {
		var s string
		before := len(r.faults)
		r.text(&s)(p, n)
		if len(r.faults) > before {
			return
		}
		if !path.IsAbs(s) {
			r.fault(p, n.GetToken(), "want the absolute path of a PEM file")
			return
		}
		*into = s
	}
}

// lake reads where the lake is: a URI, or a section for a bucket.
func (r *reader) lake(f *File) func(string, ast.Node) {
	return func(p string, n ast.Node) {
		if _, isText := glued(r.resolve(n)); !isText && isMapping(r.resolve(n)) {
			r.bucket(p, n, f)
			return
		}
		r.lakeURI(&f.Lake)(p, n)
	}
}

func isMapping(n ast.Node) bool {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return true
	}
	return false
}

// bucket reads a lake in a bucket, and how that is reached.
func (r *reader) bucket(p string, n ast.Node, f *File) {
	b := &Bucket{}
	r.object(p, n, []field{
		{"uri", r.lakeURI(&f.Lake)},
		{"endpoint", r.endpoint(&b.Endpoint)},
		{"region", r.named(&b.Region, regionName, "lower-case letters, digits and -, at most 32")},
		{"addressing", r.named(&b.Addressing, addressing, "path or virtual")},
		{"kms_key", r.text(&b.KMSKey)},
		{"access_key", r.secret(&b.AccessKey)},
		{"secret_key", r.secret(&b.SecretKey)},
	})
	if !r.given(join(p, "uri")) {
		r.faultAt(join(p, "uri"), "missing; say where the tables go, such as uri: s3://bucket/prefix")
	}
	if f.Lake != "" && !strings.HasPrefix(f.Lake, "s3://") {
		r.faultAt(p, "only a lake in a bucket has a section; write lake: %s", f.Lake)
	}
	if r.given(join(p, "access_key")) != r.given(join(p, "secret_key")) {
		r.faultAt(p, "access_key and secret_key go together: one is missing")
	}
	if *b != (Bucket{}) {
		f.Bucket = b
	}
}

var addressing = regexp.MustCompile(`^(path|virtual)$`)

// endpoint reads the address of a service.
func (r *reader) endpoint(into *string) func(string, ast.Node) {
	return func(p string, n ast.Node) {
		var s string
		before := len(r.faults)
		r.text(&s)(p, n)
		if len(r.faults) > before {
			return
		}
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			r.hideLine(n.GetToken())
			r.fault(p, n.GetToken(), "an endpoint is like https://host:port")
			return
		}
		*into = u.Scheme + "://" + u.Host
	}
}

// lakeURI reads the lake's URI.
func (r *reader) lakeURI(into *string) func(string, ast.Node) {
	return func(p string, n ast.Node) {
		var s string
		before := len(r.faults)
		r.text(&s)(p, n)
		if len(r.faults) > before {
			return
		}
		uri, why := lakeURI(s)
		if why != "" {
			r.fault(p, n.GetToken(), "%s", why)
			return
		}
		*into = uri
	}
}

// lakeURI returns s without what does not matter, or what is wrong with it.
func lakeURI(s string) (uri, why string) {
	scheme, rest, ok := strings.Cut(s, "://")
	switch {
	case strings.HasPrefix(s, "/"):
		rest = s
	case ok && strings.EqualFold(scheme, "file"):
		if !strings.HasPrefix(rest, "/") {
			return "", "file: needs an absolute path after file://, which makes three slashes: file:///var/lib/lake"
		}
	case ok && scheme == "s3":
		return bucketURI(s)
	case ok && (strings.EqualFold(scheme, "s3") || strings.EqualFold(scheme, "s3a")):
		return "", "write s3://bucket/prefix"
	case ok:
		return "", fmt.Sprintf("a lake cannot lie at %s://; use file:///path or s3://bucket/prefix", scheme)
	default:
		return "", "the lake is the URI of a folder with an absolute path, such as file:///var/lib/lake, or s3://bucket/prefix"
	}
	if strings.ContainsAny(rest, "?#\x00") {
		return "", "the path of a lake holds no ? and no #"
	}
	clean := path.Clean(rest)
	if clean == "/" {
		return "", "the lake needs a folder of its own, such as file:///var/lib/lake"
	}
	return "file://" + clean, ""
}

// bucketURI is lakeURI of a bucket.
func bucketURI(s string) (uri, why string) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.User != nil || u.Port() != "" || u.Host == "":
		return "", "a lake in a bucket is s3://bucket/prefix"
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", "s3://bucket/prefix is all that the URI says; endpoint, region and the like stand beside it: lake: {uri: s3://bucket/prefix, endpoint: https://host:port}"
	}
	prefix := strings.Trim(u.Path, "/")
	if prefix != "" && (!fs.ValidPath(prefix) || prefix == "." || strings.ContainsAny(prefix, "\\\x00")) {
		return "", "the prefix of a lake in a bucket has no empty parts, and none that is . or .."
	}
	u = &url.URL{Scheme: "s3", Host: u.Host, Path: "/" + prefix}
	return strings.TrimSuffix(u.String(), "/"), ""
}

// security applies allow_insecure to what was read.
func (r *reader) security(f *File) {
	if f.AllowInsecure {
		if !r.given("kafka.replication") {
			f.Kafka.Replication = 1
		}
		if !r.given("kafka.min_insync") {
			f.Kafka.MinInSync = min(1, f.Kafka.Replication)
		}
		r.loopback("temporal.address", f.Temporal.Address)
		for i, b := range f.Kafka.Brokers {
			r.loopback("kafka.brokers["+strconv.Itoa(i)+"]", b)
		}
	} else {
		if f.Temporal.TLS == nil {
			f.Temporal.TLS = &TLS{}
		}
		if f.Kafka.TLS == nil {
			f.Kafka.TLS = &TLS{}
		}
		if f.Kafka.Replication < 2 {
			r.faultAt("kafka.replication", "one replica can lose acknowledged changes; use 3 (allow_insecure: true accepts 1 where every address is loopback)")
		}
		if f.Kafka.MinInSync < 2 {
			r.faultAt("kafka.min_insync", "min_insync %d can lose acknowledged changes; use 2 (allow_insecure: true accepts 1 where every address is loopback)", f.Kafka.MinInSync)
		}
	}
	if f.Bucket != nil && strings.HasPrefix(f.Bucket.Endpoint, "http://") {
		host := strings.TrimPrefix(f.Bucket.Endpoint, "http://")
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		if !f.AllowInsecure || !isLoopback(host) {
			r.faultAt("lake.endpoint", "http:// sends the rows in plain text; use https:// (allow_insecure: true accepts http:// on loopback)")
		}
	}
	if f.Kafka.MinInSync > f.Kafka.Replication {
		p := "kafka.min_insync"
		if !r.given(p) {
			p = "kafka.replication"
		}
		r.faultAt(p, "min_insync %d is more than replication %d: nothing could ever be written", f.Kafka.MinInSync, f.Kafka.Replication)
	}
}

// loopback notes an address that allow_insecure does not permit.
func (r *reader) loopback(p, hostport string) {
	if host, _, err := net.SplitHostPort(hostport); err == nil && !isLoopback(host) {
		r.faultAt(p, "allow_insecure works only where every address is loopback, and %s is not; remove allow_insecure, or use 127.0.0.1", host)
	}
}

// isLoopback tells whether host can only be this machine.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.Unmap().IsLoopback()
}

func (r *reader) databases(p string, n ast.Node, f *File, shared *Database) {
	slots := make(map[string]string)
	r.entries(p, n, func(name string, at *token.Token, value ast.Node) {
		dp := join(p, name)
		r.places[dp] = at
		if !databaseName.MatchString(name) {
			r.fault(dp, at, "%q is not a name for a database here; use lower-case letters, digits, _ and -, beginning with a letter, at most 40 (the url has the real name)", name)
		}
		slot := strings.ReplaceAll(name, "-", "_")
		if other, taken := slots[slot]; taken {
			r.fault(dp, at, "%q and %q would share a replication slot: a slot can feed one reader; rename one", other, name)
		}
		slots[slot] = name
		if value == nil {
			r.fault(dp, at, "the value is missing; a database needs url and tables")
			return
		}
		before := len(r.faults)
		d := r.database(dp, value, f, shared)
		d.Name = name
		d.Topic.Name = f.Kafka.TopicPrefix + "." + name
		if len(r.faults) == before {
			if b, err := json.Marshal(d); err == nil && len(b) > MaxDatabase {
				r.fault(dp, at, "the configuration is %d KiB, more than the %d KiB that Temporal carries; use fewer, wider patterns", len(b)>>10, MaxDatabase>>10)
			}
		}
		f.Databases = append(f.Databases, d)
	})
}

func (r *reader) database(p string, n ast.Node, f *File, shared *Database) Database {
	d := *shared
	d.Casts = maps.Clone(shared.Casts)
	d.Region, d.HeartbeatTimeout, d.AllowInsecure = f.Region, f.Temporal.HeartbeatTimeout, f.AllowInsecure
	d.Lake, d.Bucket = f.Lake, f.Bucket
	d.Topic = Topic{
		Partitions:  f.Kafka.Partitions,
		Replication: f.Kafka.Replication,
		MinInSync:   f.Kafka.MinInSync,
		Retention:   f.Kafka.Retention,
	}
	r.object(p, n, slices.Concat([]field{
		{"url", func(p string, n ast.Node) { r.url(p, n, &d.URL, f.AllowInsecure) }},
		{"password", r.secret(&d.Password)},
		{"tables", r.patterns(&d.Tables)},
	}, r.shared("", &d), []field{
		{"rules", func(p string, n ast.Node) { r.rules(p, n, &d.Rules) }},
	}))
	d.Casts = castOver(nil, d.Casts)
	d.source = r.sourceOf(p, &d)
	if !r.given(join(p, "url")) {
		r.faultAt(join(p, "url"), "missing; such as url: postgres://millrace@db.example.com:5432/shop")
	}
	if !r.given(join(p, "tables")) {
		r.faultAt(join(p, "tables"), `missing; such as tables: ["public.*"]`)
	}
	return d
}

// secret reads a reference.
func (r *reader) secret(into *Secret) func(string, ast.Node) {
	return func(p string, n ast.Node) {
		v := r.resolve(n)
		s, ok := scalar(v)
		switch v.(type) {
		case *ast.AliasNode, *ast.TagNode: // what YAML takes for a name may be the secret
			r.fault(p, n.GetToken(), "%s", errLiteral)
			return
		}
		if !ok {
			r.wrongKind(p, n, "env:NAME or file:/PATH")
			return
		}
		ref, err := ParseSecret(s)
		if err != nil {
			r.fault(p, n.GetToken(), "%s", err)
			return
		}
		*into = ref
	}
}

// patterns reads a list of table patterns.
func (r *reader) patterns(into *[]string) func(string, ast.Node) {
	return func(p string, n ast.Node) {
		before := len(r.faults)
		positive := false
		r.texts(func(p string, at *token.Token, s string) {
			if slices.Contains(*into, s) {
				r.fault(p, at, "duplicate: %q is already in the list", s)
				return
			}
			parts, err := splitName(strings.TrimPrefix(s, "!"))
			if err != nil || len(parts) != 2 {
				r.fault(p, at, "%q is not a pattern of tables; write schema.table, where * stands for any characters: \"public.*\"", s)
				return
			}
			positive = positive || !strings.HasPrefix(s, "!")
			r.places[p] = at
			*into = append(*into, s)
		})(p, n)
		if len(r.faults) == before && !positive {
			r.fault(p, n.GetToken(), "no pattern chooses a table; such as [\"public.*\"]")
		}
	}
}

// urlParams are the parameters that a source's url may have.
var urlParams = []string{"sslmode", "sslrootcert", "sslcert", "sslkey", "sslsni", "connect_timeout", "host"}

var sslModes = []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}

// url reads the address of a source. No message repeats the url, which may hold
// a password.
func (r *reader) url(p string, n ast.Node, into *string, insecure bool) {
	var s string
	before := len(r.faults)
	r.text(&s)(p, n)
	if len(r.faults) > before {
		return
	}
	const form = "such as postgres://millrace@db.example.com:5432/shop"
	at := n.GetToken()
	if !strings.HasPrefix(s, "postgres://") && !strings.HasPrefix(s, "postgresql://") {
		r.hideLine(at)
		r.fault(p, at, "a source is a URL that begins with postgres://, %s", form)
		return
	}
	u, err := url.Parse(s)
	if err != nil {
		r.hideLine(at)
		r.fault(p, at, "not a valid URL; write postgres://user@host:port/database, %s", form)
		return
	}
	if _, has := u.User.Password(); has {
		r.hideLine(at)
		r.fault(p, at, "the url holds a password; literal secrets are not accepted: take it out and write password: env:NAME or password: file:/PATH")
		return
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		r.hideLine(at)
		r.fault(p, at, "not a valid URL: its parameters cannot be read")
		return
	}
	for _, key := range slices.Sorted(maps.Keys(q)) {
		switch {
		case isSecretKey(key):
			r.hideLine(at)
			r.fault(p, at, "the url holds a secret in parameter %q; literal secrets are not accepted: use password: env:NAME or password: file:/PATH", key)
		case !slices.Contains(urlParams, key):
			r.fault(p, at, "unknown parameter %q in the url; the nearest valid one is %q (valid: %s)", key, nearest(key, urlParams), strings.Join(urlParams, ", "))
		case len(q[key]) > 1:
			r.fault(p, at, "parameter %q comes twice in the url", key)
		}
	}
	socket := q.Get("host")
	switch {
	case u.User.Username() == "":
		r.fault(p, at, "the url names no user, %s", form)
	case u.Hostname() == "" && socket == "":
		r.fault(p, at, "the url names no host, %s", form)
	case socket != "" && (!path.IsAbs(socket) || u.Hostname() != ""):
		r.fault(p, at, "parameter host is the folder of a unix socket, instead of a host in the url")
	case strings.Trim(u.Path, "/") == "" || strings.Count(u.Path, "/") > 1:
		r.fault(p, at, "the url names no database, %s", form)
	case u.Fragment != "":
		r.fault(p, at, "the url holds a #; write it as %%23")
	}
	r.sslMode(p, at, q, insecure, socket != "" || isLoopback(u.Hostname()), socket != "")
	if insecure && socket == "" && u.Hostname() != "" && !isLoopback(u.Hostname()) {
		r.fault(p, at, "allow_insecure works only where every address is loopback, and %s is not; remove allow_insecure, or use 127.0.0.1", u.Hostname())
	}
	if len(r.faults) > before {
		return
	}
	u.Scheme = "postgres"
	u.RawQuery = q.Encode()
	*into = u.String()
}

// sslMode checks sslmode and spells out the default in q.
func (r *reader) sslMode(p string, at *token.Token, q url.Values, insecure, local, socket bool) {
	mode := q.Get("sslmode")
	switch {
	case mode == "" && socket:
		q.Set("sslmode", "disable")
	case mode == "":
		q.Set("sslmode", "verify-full")
	case !slices.Contains(sslModes, mode):
		r.fault(p, at, "unknown sslmode %q; the nearest valid one is %q", mode, nearest(mode, sslModes))
	case mode == "verify-full" || socket:
	case !local:
		r.fault(p, at, "sslmode %q does not verify the server; use sslmode=verify-full (others work on loopback only, with allow_insecure: true)", mode)
	case !insecure:
		r.fault(p, at, "sslmode %q does not verify the server; use sslmode=verify-full, or set allow_insecure: true where every address is loopback", mode)
	}
}

// hideLine masks the value at a token from the quoted line.
func (r *reader) hideLine(at *token.Token) {
	if i := at.Position.Line - 1; i >= 0 && i < len(r.lines) {
		line := []rune(r.lines[i])
		r.lines[i] = string(line[:min(len(line), at.Position.Column-1)]) + masked
	}
}
