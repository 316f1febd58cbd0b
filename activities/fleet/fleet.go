// Package fleet reads the fleet file: the one YAML file that says which
// databases are mirrored, through which Kafka, into which lake, and where
// Temporal is.
//
// It is strict. An unknown key, a duplicate, a value of the wrong kind and a
// literal secret are faults; all faults of a file are reported at once, each
// with its line quoted and, for a misspelt key, the nearest valid one. It opens
// no connection and reads no secret: [Secret] and [TLS] are references that the
// worker resolves when it connects.
package fleet

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// maxFile is the largest fleet file that is read, in bytes.
const maxFile = 8 << 20

// MaxDatabase is the largest JSON form of a [Database], in bytes: it travels as
// the input of a workflow.
const MaxDatabase = 256 << 10

// ErrUnknownDatabase is the class of the error of [File.Database] for a name
// that the file does not hold.
var ErrUnknownDatabase = errors.New("no such database in the fleet file")

// File is a fleet file with all defaults filled in. Every value has been
// validated.
type File struct {
	// Name is the path as it was given, for messages and for the commands that
	// they suggest.
	Name string `json:"-"`
	// Region is the part of the world that the file describes: one word, part
	// of task queues and workflow ids. Default: local.
	Region   string   `json:"region"`
	Temporal Temporal `json:"temporal"`
	Kafka    Kafka    `json:"kafka"`
	// AllowInsecure permits connections without TLS and a single replica. Every
	// address in the file is loopback then, but for an endpoint with https.
	AllowInsecure bool `json:"allow_insecure"`
	// Lake is the URI below which all tables lie, without a trailing slash.
	Lake string `json:"lake"`
	// Bucket says how a lake in a bucket is reached; nil where AWS's own settings
	// say so, and for folders.
	Bucket *Bucket `json:"bucket,omitempty"`
	// Databases are the databases in the order of the file.
	Databases []Database `json:"databases"`
}

// Temporal says where the Temporal service is.
type Temporal struct {
	// Address is host:port. Default: 127.0.0.1:7233.
	Address string `json:"address"`
	// Namespace defaults to "default".
	Namespace string `json:"namespace"`
	// HeartbeatTimeout is how long a lane may be silent before its work is
	// given to another worker. Default: 30s.
	HeartbeatTimeout time.Duration `json:"heartbeat_timeout"`
	// TLS is nil for a connection in plain text.
	TLS *TLS `json:"tls,omitempty"`
}

// Kafka says where the brokers are and how topics are made.
type Kafka struct {
	// Brokers are host:port, at least one.
	Brokers []string `json:"brokers"`
	// TopicPrefix precedes the database's name in the name of its topic.
	// Default: millrace.
	TopicPrefix string `json:"topic_prefix"`
	// Partitions is the number of partitions of a database's topic. Default: 6.
	Partitions int `json:"partitions"`
	// Retention is how long records are kept. Default: 7d.
	Retention time.Duration `json:"retention"`
	// Replication is the number of copies of each partition. Default: 3, and 1
	// under allow_insecure.
	Replication int `json:"replication"`
	// MinInSync is how many copies must hold a record before it counts as
	// written. Default: 2, and 1 under allow_insecure.
	MinInSync int `json:"min_insync"`
	// TLS is nil for connections in plain text.
	TLS *TLS `json:"tls,omitempty"`
}

// Bucket says how a bucket is reached and written. What is empty is as AWS's own
// settings in the worker's environment have it.
type Bucket struct {
	// Endpoint is the address of the service, as in https://host:port.
	Endpoint string `json:"endpoint,omitempty"`
	// Region is the bucket's.
	Region string `json:"region,omitempty"`
	// Addressing is where requests name the bucket: path or virtual.
	Addressing string `json:"addressing,omitempty"`
	// KMSKey encrypts new objects with this key of AWS KMS.
	KMSKey string `json:"kms_key,omitempty"`
	// AccessKey and SecretKey are references; both are given or none.
	AccessKey Secret `json:"access_key,omitempty"`
	SecretKey Secret `json:"secret_key,omitempty"`
}

// Load reads and validates the file at path. Faults in its contents are
// returned together as [Faults].
func Load(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the fleet file: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read the fleet file: %w", err)
	}
	return Parse(path, b)
}

// Parse validates the contents of a fleet file. The name is used in messages
// alone. Faults are returned together as [Faults].
func Parse(name string, b []byte) (*File, error) {
	return parse(name, b, unsupported)
}

// parse refuses the keys that are unsupported.
func parse(name string, b []byte, unsupported []string) (*File, error) {
	r := newReader(filepath.Base(name), b, unsupported)
	file := r.file()
	if err := r.err(); err != nil {
		return nil, err
	}
	file.Name = name
	return file, nil
}

// Database returns the database called name. The error names the nearest one
// that exists and is an [ErrUnknownDatabase].
func (f *File) Database(name string) (*Database, error) {
	names := make([]string, len(f.Databases))
	for i := range f.Databases {
		if f.Databases[i].Name == name {
			return &f.Databases[i], nil
		}
		names[i] = f.Databases[i].Name
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%w: %q; %s lists none", ErrUnknownDatabase, name, f.Name)
	}
	slices.Sort(names)
	return nil, fmt.Errorf("%w: %q; the nearest in %s is %q", ErrUnknownDatabase, name, f.Name, nearest(name, names))
}
