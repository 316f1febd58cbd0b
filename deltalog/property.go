package deltalog

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// propertyForm is what the values of a property are.
type propertyForm struct {
	fits func(string) bool
	want string // in words
}

var (
	isBool     = propertyForm{func(v string) bool { return oneOf(v, "true", "false") }, "true or false"}
	isInterval = propertyForm{func(v string) bool {
		d, err := parseInterval(v)
		return err == nil && d > 0
	}, "an interval above zero, such as interval 30 days"}
)

// propertyForms are those of the properties that this package acts on. Column
// mapping has checks of its own.
var propertyForms = map[string]propertyForm{
	PropertyAppendOnly:           isBool,
	PropertyDeletionVectors:      isBool,
	PropertyChangeDataFeed:       isBool,
	PropertyRowTracking:          isBool,
	PropertyTypeWidening:         isBool,
	PropertyInCommitTimestamps:   isBool,
	PropertyLogCleanup:           isBool,
	propertyRowIDsSuspended:      isBool,
	propertyStatsAsJSON:          isBool,
	propertyStatsAsStruct:        isBool,
	PropertyDeletedFileRetention: isInterval,
	PropertyLogRetention:         isInterval,
	PropertyCheckpointInterval:   {atLeast(1), "a number of commits, at least 1"},
	PropertyStatsColumns:         {atLeast(-1), "a number of columns, or -1 for all"},
	PropertyCheckpointPolicy:     {func(v string) bool { return v == "classic" || v == "v2" }, "classic or v2"},
	PropertyIsolationLevel: {
		func(v string) bool { return oneOf(v, isolationSerializable, isolationWriteSerializable) },
		isolationWriteSerializable + " or " + isolationSerializable,
	},
}

// fixedProperties stay as they are once they are set.
var fixedProperties = []string{propertyRowIDColumn, propertyRowCommitColumn, propertyInCommitVersion, propertyInCommitTime}

func oneOf(v string, words ...string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(v, w) })
}

func atLeast(least int) func(string) bool {
	return func(v string) bool {
		n, err := strconv.Atoi(v)
		return err == nil && n >= least
	}
}

// checkProperties checks the properties of a table that are not as they were:
// those that others have set stay what they are.
func checkProperties(was, now map[string]string, first bool) error {
	for _, name := range fixedProperties {
		if value, had := was[name]; had && now[name] != value {
			return fmt.Errorf("%w: property %s is for life: what was written depends on it", ErrInvalid, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		value := now[name]
		if old, had := was[name]; had && old == value && !first {
			continue
		}
		if strings.HasPrefix(name, "delta.feature.") || name == "delta.minReaderVersion" || name == "delta.minWriterVersion" {
			return fmt.Errorf("%w: %s is about the protocol, and no property that a table has", ErrInvalid, name)
		}
		if form, ok := propertyForms[name]; ok && !form.fits(value) {
			return fmt.Errorf("%w: property %s is %q: want %s", ErrInvalid, name, value, form.want)
		}
	}
	return nil
}

// parseInterval reads durations as properties have them, such as
// "interval 1 week" or "interval 12 hours 30 minutes". Empty means zero.
func parseInterval(text string) (time.Duration, error) {
	words := strings.Fields(strings.ToLower(text))
	if len(words) > 0 && words[0] == "interval" {
		words = words[1:]
	}
	if len(words)%2 != 0 {
		return 0, fmt.Errorf("interval %q: want pairs of number and unit", text)
	}
	var sum time.Duration
	for i := 0; i < len(words); i += 2 {
		n, err := strconv.ParseInt(words[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("interval %q: %w", text, errInterval)
		}
		unit, ok := intervalUnits[strings.TrimSuffix(words[i+1], "s")]
		if !ok || n < 0 || n > int64((1<<63-1-sum)/unit) {
			return 0, fmt.Errorf("interval %q: %w", text, errInterval)
		}
		sum += time.Duration(n) * unit
	}
	return sum, nil
}

var errInterval = errors.New("want whole numbers of units from microseconds to weeks")

var intervalUnits = map[string]time.Duration{
	"microsecond": time.Microsecond, "millisecond": time.Millisecond, "second": time.Second,
	"minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour, "week": 7 * 24 * time.Hour,
}
