package pgsource

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/activities/change"
)

// Check says what stands between this source and being mirrored: settings of
// the server, privileges of the role, and what [DB.Tables] finds wrong with
// single tables. An error means that the source could not be asked.
func (d *DB) Check(ctx context.Context, patterns []string) ([]Problem, error) {
	var f facts
	_, problems, err := d.check(ctx, &f, patterns)
	return problems, err
}

// check is Check that tells what it judged by, and the tables.
func (d *DB) check(ctx context.Context, f *facts, patterns []string) ([]*change.Table, []Problem, error) {
	err := d.query(ctx, "look at the server's settings", func(ctx context.Context, c *pgx.Conn) error { return f.read(ctx, c) })
	if err != nil {
		return nil, nil, err
	}
	problems := d.judge(f)
	tables, found, err := d.Tables(ctx, patterns)
	if err != nil {
		return nil, nil, err
	}
	if len(tables) == 0 {
		problems = append(problems, d.nothing(patterns, len(found)))
	}
	return tables, append(problems, found...), nil
}

// facts are what Check judges the server and the role by.
type facts struct {
	version                 int
	versionText             string
	standby                 bool
	walLevel                string
	plugins                 *string // output_plugin_libraries, where it exists
	slots, slotsMax         int
	senders, sendersMax     int
	oursSlots               int
	replication, mayPublish bool
	published               bool
	keep                    string // max_slot_wal_keep_size
	host                    Host
}

func (f *facts) read(ctx context.Context, c *pgx.Conn) error {
	return c.QueryRow(ctx, `
		SELECT current_setting('server_version_num')::int, current_setting('server_version'),
		       pg_is_in_recovery(), current_setting('wal_level'), current_setting('output_plugin_libraries', true),
		       (SELECT count(*) FROM pg_replication_slots), current_setting('max_replication_slots')::int,
		       (SELECT count(*) FROM pg_stat_get_wal_senders()), current_setting('max_wal_senders')::int,
		       (SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND starts_with(slot_name::text, 'millrace_')),
		       (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user)
		         OR EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication' AND pg_has_role(current_user, oid, 'MEMBER')),
		       has_database_privilege(current_database(), 'CREATE'),
		       EXISTS (SELECT FROM pg_publication WHERE starts_with(pubname::text, 'millrace_')),
		       current_setting('max_slot_wal_keep_size'), `+hostSQL).
		Scan(&f.version, &f.versionText, &f.standby, &f.walLevel, &f.plugins, &f.slots, &f.slotsMax,
			&f.senders, &f.sendersMax, &f.oursSlots, &f.replication, &f.mayPublish, &f.published, &f.keep, &f.host)
}

// decodingFix is a bug of logical decoding, and the minor release of each major
// version that is free of it. Majors that are not named never had it. For 15 that is
// what its release notes say, for the others the release of the same day.
type decodingFix struct {
	what string
	// loses tells that changes are lost in silence, or capture cannot go on.
	loses bool
	since map[int]int
}

var decodingFixes = []decodingFix{
	{"an added column's constant default can be sent as NULL", true, map[int]int{14: 11, 15: 6, 16: 2}},
	{"a slot can begin in the middle of a transaction", true, map[int]int{14: 13, 15: 8, 16: 4}},
	{"changes are lost where ALTER PUBLICATION or other DDL runs beside open transactions", true, map[int]int{14: 18, 15: 13, 16: 9, 17: 5}},
	{"DDL beside open transactions can exhaust the memory of decoding, and a slot's confirmed position can move back", true, map[int]int{14: 19, 15: 14, 16: 10, 17: 6}},
	{"a checkpoint can invalidate a slot that is just being made", false, map[int]int{14: 21, 15: 16, 16: 12, 17: 8, 18: 2}},
	{"a change of the catalog that a subtransaction rolled back can be used for decoding", false, map[int]int{14: 25, 15: 20, 16: 16, 17: 12, 18: 6}},
}

// bugs lists what is wrong with decoding in a release, whether that loses changes,
// and the first minor release that is free of all of it.
func bugs(major, minor int) (what []string, loses bool, free int) {
	for _, f := range decodingFixes {
		if since := f.since[major]; minor < since {
			what = append(what, f.what)
			loses = loses || f.loses
			free = max(free, since)
		}
	}
	return what, loses, free
}

// judge says what is wrong with the server and the role.
func (d *DB) judge(f *facts) (problems []Problem) {
	add := func(blocking bool, code, sentence, remedy string) {
		problems = append(problems, Problem{Code: code, Sentence: sentence, Remedy: remedy, Blocking: blocking})
	}
	role := ident(d.user())
	major, minor := f.version/10000, f.version%10000
	wrong, loses, free := bugs(major, minor)
	switch {
	case major < 14:
		add(true, "SOURCE_VERSION", "PostgreSQL "+f.versionText+" is too old: Millrace needs 14 or later", "upgrade the server")
	case loses:
		add(true, "SOURCE_VERSION", fmt.Sprintf("PostgreSQL %s is not safe to decode: %s", f.versionText, strings.Join(wrong, "; ")),
			fmt.Sprintf("update the server to %d.%d or later", major, free))
	case len(wrong) > 0:
		add(false, "SOURCE_VERSION_OLD", fmt.Sprintf("PostgreSQL %s lacks fixes of logical decoding: %s", f.versionText, strings.Join(wrong, "; ")),
			fmt.Sprintf("update the server to %d.%d or later", major, free))
	}
	if f.standby {
		add(true, "SOURCE_STANDBY", "the server is a standby, where no publication or slot can be made", "use the address of the primary")
	}
	if f.walLevel != "logical" {
		add(true, "WAL_LEVEL", fmt.Sprintf("wal_level is %s, so the log does not hold what changed", f.walLevel), f.host.set("wal_level", "logical", true))
	}
	if f.plugins != nil && *f.plugins != "" && !strings.Contains(*f.plugins, "pgoutput") {
		add(true, "SOURCE_PLUGIN", "output_plugin_libraries does not list pgoutput",
			f.host.set("output_plugin_libraries", *f.plugins+", pgoutput", false))
	}
	// One slot for the stream, and one for moments when a cut is taken.
	need := 2 - min(f.oursSlots, 1)
	if free := f.slotsMax - f.slots; free < need {
		add(true, "NO_FREE_SLOT", fmt.Sprintf("%d of %d replication slots are taken, and %d more are needed", f.slots, f.slotsMax, need),
			fmt.Sprintf("drop slots that nobody needs (SELECT slot_name, active FROM pg_replication_slots; SELECT pg_drop_replication_slot('…');), or:\n%s", f.host.set("max_replication_slots", strconv.Itoa(f.slots+need+8), true)))
	}
	if free := f.sendersMax - f.senders; free < need {
		add(true, "NO_FREE_SLOT", fmt.Sprintf("%d of %d walsenders are taken, and %d more are needed", f.senders, f.sendersMax, need),
			f.host.set("max_wal_senders", strconv.Itoa(f.senders+need+8), true))
	}
	if !f.replication {
		add(true, "PERMISSION_DENIED", fmt.Sprintf("the role %s may not read replication slots", d.user()),
			f.host.replication(role))
	}
	if !f.mayPublish && !f.published {
		add(true, "PERMISSION_DENIED", fmt.Sprintf("the role %s may not make publications in the database %s", d.user(), d.database()),
			fmt.Sprintf("GRANT CREATE ON DATABASE %s TO %s; -- or make them as the owner of the tables", ident(d.database()), role))
	}
	if f.keep == "-1" {
		add(false, "SOURCE_WAL_UNLIMITED", "max_slot_wal_keep_size sets no limit, so a slot that is not read can fill the server's disk; set it below what the disk has to spare",
			f.host.set("max_slot_wal_keep_size", "100GB", false))
	}
	return problems
}

// nothing says that the patterns choose no table that could be mirrored.
func (d *DB) nothing(patterns []string, refused int) Problem {
	p := Problem{Code: "SOURCE_NO_TABLES", Blocking: true}
	p.Sentence = fmt.Sprintf("no table of the database %s matches %s", d.database(), strings.Join(patterns, ", "))
	if refused > 0 {
		p.Sentence = fmt.Sprintf("nothing that matches %s in the database %s is a table that can be mirrored", strings.Join(patterns, ", "), d.database())
	}
	p.Remedy = `correct the patterns, such as "public.*"; the tables are: SELECT schemaname, tablename FROM pg_tables;`
	return p
}

// AsError makes an error of the first problem that blocks the whole database,
// with its class, and nil where there is none.
func AsError(problems []Problem) error {
	for _, p := range problems {
		if !p.Blocking || p.Table != "" {
			continue
		}
		class := problemClasses[p.Code]
		if class == nil {
			class = ErrConfig
		}
		return &Error{Problem: p, Class: class}
	}
	return nil
}

var problemClasses = map[string]error{
	"SOURCE_VERSION":    ErrVersion,
	"WAL_LEVEL":         ErrWALLevel,
	"NO_FREE_SLOT":      ErrNoFreeSlot,
	"PERMISSION_DENIED": ErrPrivilege,
	"SOURCE_NO_TABLES":  ErrNoTables,
	"PUBLICATION":       ErrPrivilege,
}
