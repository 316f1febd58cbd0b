package pgsource

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
)

// nameMax is the longest name that PostgreSQL keeps, in bytes.
const nameMax = 63

// SlotName is the name of the slot of a database of the fleet at an epoch.
func SlotName(db string, epoch uint32) string {
	return slotPrefix(db) + strconv.FormatUint(uint64(epoch), 10)
}

func slotPrefix(db string) string { return "millrace_" + safe(db) + "_e" }

// PublicationNames are the names of the publications of a database of the
// fleet: the first publishes inserts, updates, deletes and truncates of tables
// with a replica identity, the second inserts and truncates of those without.
func PublicationNames(db string) []string {
	main := "millrace_" + safe(db)
	return []string{main, main + "_inserts"}
}

// safe spells a name in [a-z0-9_], at most 40 bytes long. Where that changes
// it, a hash keeps it apart from others.
func safe(name string) string {
	const most = 40
	var b strings.Builder
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '_':
			b.WriteByte(c)
		case 'A' <= c && c <= 'Z':
			b.WriteByte(c + 'a' - 'A')
		default:
			b.WriteByte('_')
		}
	}
	s := b.String()
	if s == name && len(s) <= most && s != "" {
		return s
	}
	return fmt.Sprintf("%.31s_%08x", s, hash32(name))
}

func hash32(s string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(s))
	return h.Sum32()
}

// applicationName makes a tag fit what the server keeps of an application_name,
// so that whose session it is, its run and its attempt stay readable. A run that
// is a UUID is always shortened, so that all its attempts are spelt alike.
func applicationName(tag string) string {
	const uuid, short = 36, 8
	owner, run, attempt := splitTag(tag)
	if len(run) == uuid {
		run = run[:short]
		tag = owner + "/" + run + "/" + attempt
	}
	if len(tag) <= nameMax {
		return tag
	}
	hash := fmt.Sprintf("~%08x", hash32(owner))
	tail := "/" + run + "/" + attempt
	if len(tail)+len(hash) > nameMax {
		return tag[:nameMax-len(hash)] + hash
	}
	return owner[:min(len(owner), nameMax-len(tail)-len(hash))] + hash + tail
}

// splitTag parts a tag into whose it is (all but the last two segments), run
// and attempt. Run and attempt are empty where the tag is not of that form.
func splitTag(tag string) (owner, run, attempt string) {
	rest, attempt, found := cutLast(tag)
	if !found {
		return tag, "", ""
	}
	owner, run, found = cutLast(rest)
	if !found {
		return tag, "", ""
	}
	return owner, run, attempt
}

// databaseOf is the part of a tag that all steps of one database share: its first
// two segments.
func databaseOf(tag string) string {
	first, rest, _ := strings.Cut(tag, "/")
	second, _, _ := strings.Cut(rest, "/")
	return first + "/" + second
}

func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}
