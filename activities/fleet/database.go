package fleet

import (
	"errors"
	"strings"
	"time"
)

// Database is the whole configuration of one database, as its workflow and its
// activities carry it. Its JSON form holds no secret and is at most
// [MaxDatabase] bytes.
type Database struct {
	// Name is the database's name in the fleet file: part of its workflow id,
	// its topic, its slot and its folder in the lake.
	Name string `json:"name"`
	// Region is the region of the file.
	Region string `json:"region"`
	// Pool names the workers that serve the database. Default: default.
	Pool string `json:"pool"`
	// URL is where the source is, with user and database, and with sslmode
	// always spelt out. It holds no password.
	URL string `json:"url"`
	// Password is a reference; empty where the source asks for none.
	Password Secret `json:"password,omitempty"`
	// Tables are patterns schema.table, where * stands for any run of
	// characters; those that begin with ! exclude. The last pattern that fits a
	// table decides whether it is mirrored.
	Tables []string `json:"tables"`
	// Options hold for every table of which no rule says otherwise: what the
	// file's defaults say, with what the database says over it.
	Options
	// Rules say what holds for some tables. Of those that fit a table and set a
	// key the last decides.
	Rules []Rule `json:"rules,omitempty"`
	// WALBudget is how much WAL the slot may hold, in bytes; 0 for no limit.
	WALBudget int64 `json:"wal_budget,omitempty"`
	// OnWALBudget is what is done at last where the budget does not suffice.
	// Default: OnBudgetPark.
	OnWALBudget BudgetAct `json:"on_wal_budget"`
	// HeartbeatTimeout is that of the file's temporal section.
	HeartbeatTimeout time.Duration `json:"heartbeat_timeout"`
	// Lake is the file's lake, without a trailing slash.
	Lake string `json:"lake"`
	// Bucket is that of the file; nil for a lake in a folder.
	Bucket *Bucket `json:"bucket,omitempty"`
	// Topic says how the database's topic is called and made.
	Topic Topic `json:"topic"`
	// AllowInsecure is that of the file.
	AllowInsecure bool `json:"allow_insecure,omitempty"`

	// source tells where the file says what; nil where the configuration did not
	// come from a file.
	source *source
}

// BudgetAct is what is done at last where a budget of WAL does not suffice.
type BudgetAct string

// The acts.
const (
	// OnBudgetPark keeps the slot.
	OnBudgetPark BudgetAct = "park"
	// OnBudgetDropSlot drops the slot, so that the source's disk cannot fill up;
	// every table is then copied anew.
	OnBudgetDropSlot BudgetAct = "drop_slot"
)

// Topic is the Kafka topic of one database.
type Topic struct {
	Name        string        `json:"name"`
	Partitions  int           `json:"partitions"`
	Replication int           `json:"replication"`
	MinInSync   int           `json:"min_insync"`
	Retention   time.Duration `json:"retention"`
}

// errIdentifier is the class of faults in dotted names.
var errIdentifier = errors.New("bad name")

// splitName splits schema.table.column at its dots. A part in double quotes may
// hold dots, and doubled quotes stand for one, as in SQL.
func splitName(s string) ([]string, error) {
	var parts []string
	for {
		var part strings.Builder
		if strings.HasPrefix(s, `"`) {
			s = s[1:]
			for {
				i := strings.IndexByte(s, '"')
				if i < 0 {
					return nil, errIdentifier
				}
				part.WriteString(s[:i])
				s = s[i+1:]
				if !strings.HasPrefix(s, `"`) {
					break
				}
				part.WriteByte('"')
				s = s[1:]
			}
			if s != "" && s[0] != '.' {
				return nil, errIdentifier
			}
		} else {
			i := strings.IndexByte(s, '.')
			if i < 0 {
				i = len(s)
			}
			if strings.Contains(s[:i], `"`) {
				return nil, errIdentifier
			}
			part.WriteString(s[:i])
			s = s[i:]
		}
		if part.Len() == 0 {
			return nil, errIdentifier
		}
		parts = append(parts, part.String())
		if s == "" {
			return parts, nil
		}
		s = s[1:]
	}
}
