package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/twmb/franz-go/pkg/kfake"
)

// kafka is one broker that keeps its topics on disk.
type kafka struct {
	dir     string
	port    int
	configs settings
}

func newKafka(fs *flag.FlagSet) *kafka {
	k := &kafka{configs: settings{}}
	fs.StringVar(&k.dir, "dir", "", "the folder of topics and offsets")
	fs.IntVar(&k.port, "port", 0, "the port on 127.0.0.1")
	fs.Var(k.configs, "set", "a broker setting NAME=VALUE (repeatable)")
	return k
}

// brokerDefaults are what Kafka's own defaults are, where the fake broker's
// differ, and replication that one broker can keep.
var brokerDefaults = map[string]string{
	"default.replication.factor": "1",
	"min.insync.replicas":        "1",
	"log.retention.ms":           "604800000",  // 7 days
	"log.segment.bytes":          "1073741824", // 1 GiB
	"message.max.bytes":          "1048588",
}

func (k *kafka) serve(ctx context.Context) error {
	configs := settings{}
	for name, value := range brokerDefaults {
		configs[name] = value
	}
	for name, value := range k.configs {
		configs[name] = value
	}
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.Ports(k.port),
		kfake.ClusterID("millrace-local"),
		kfake.DefaultNumPartitions(1),
		kfake.DataDir(k.dir),
		kfake.BrokerConfigs(configs),
		kfake.WithLogger(kfake.BasicLogger(os.Stderr, kfake.LogLevelWarn)),
	)
	if err != nil {
		return fmt.Errorf("start the broker in %s: %w", k.dir, err)
	}
	ready(os.Getpid())
	<-ctx.Done()
	cluster.Close()
	return nil
}
