package pgsource

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Check says what stands between this source and being mirrored: settings of
// the server, privileges of the role, and what [DB.Tables] finds wrong with
// single tables. An error means that the source could not be asked.
func (d *DB) Check(ctx context.Context, patterns []string) ([]Problem, error) {
	var f facts
	err := d.query(ctx, "look at the server's settings", func(ctx context.Context, c *pgx.Conn) error { return f.read(ctx, c) })
	if err != nil {
		return nil, err
	}
	problems := d.judge(&f)
	tables, found, err := d.Tables(ctx, patterns)
	if err != nil {
		return nil, err
	}
	if len(tables) == 0 {
		problems = append(problems, d.nothing(patterns, len(found)))
	}
	return append(problems, found...), nil
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
		       current_setting('max_slot_wal_keep_size')`).
		Scan(&f.version, &f.versionText, &f.standby, &f.walLevel, &f.plugins, &f.slots, &f.slotsMax,
			&f.senders, &f.sendersMax, &f.oursSlots, &f.replication, &f.mayPublish, &f.published, &f.keep)
}

// leastMinor and fixedMinor are, by major version, the first minor release that
// loses no changes when DDL runs beside transactions, and the first that is not
// known to decode anything wrong.
var (
	leastMinor = map[int]int{14: 19, 15: 14, 16: 10, 17: 6}
	fixedMinor = map[int]int{14: 25, 15: 20, 16: 16, 17: 12, 18: 6}
)

// judge says what is wrong with the server and the role.
func (d *DB) judge(f *facts) (problems []Problem) {
	add := func(blocking bool, code, sentence, remedy string) {
		problems = append(problems, Problem{Code: code, Sentence: sentence, Remedy: remedy, Blocking: blocking})
	}
	role := ident(d.user())
	major, minor := f.version/10000, f.version%10000
	switch {
	case major < 14:
		add(true, "SOURCE_VERSION", "PostgreSQL "+f.versionText+" is too old: Millrace needs 14 or later", "upgrade the server")
	case minor < leastMinor[major]:
		add(true, "SOURCE_VERSION", fmt.Sprintf("PostgreSQL %s can lose changes while DDL runs beside transactions", f.versionText),
			fmt.Sprintf("update the server to %d.%d or later", major, fixedMinor[major]))
	case minor < fixedMinor[major]:
		add(false, "SOURCE_VERSION_OLD", fmt.Sprintf("PostgreSQL %s lacks fixes of logical decoding", f.versionText),
			fmt.Sprintf("update the server to %d.%d or later", major, fixedMinor[major]))
	}
	if f.standby {
		add(true, "SOURCE_STANDBY", "the server is a standby, where no publication or slot can be made", "use the address of the primary")
	}
	if f.walLevel != "logical" {
		add(true, "WAL_LEVEL", fmt.Sprintf("wal_level is %s, so the log does not hold what changed", f.walLevel), walLevelRemedy)
	}
	if f.plugins != nil && *f.plugins != "" && !strings.Contains(*f.plugins, "pgoutput") {
		add(true, "SOURCE_PLUGIN", "output_plugin_libraries does not list pgoutput",
			fmt.Sprintf("ALTER SYSTEM SET output_plugin_libraries = %s; SELECT pg_reload_conf();", literal(*f.plugins+", pgoutput")))
	}
	// One slot for the stream, and one for moments when a cut is taken.
	need := 2 - min(f.oursSlots, 1)
	if free := f.slotsMax - f.slots; free < need {
		add(true, "NO_FREE_SLOT", fmt.Sprintf("%d of %d replication slots are taken, and %d more are needed", f.slots, f.slotsMax, need),
			fmt.Sprintf("drop slots that nobody needs (SELECT slot_name, active FROM pg_replication_slots; SELECT pg_drop_replication_slot('…');), or: ALTER SYSTEM SET max_replication_slots = %d; -- then restart", f.slots+need+8))
	}
	if free := f.sendersMax - f.senders; free < need {
		add(true, "NO_FREE_SLOT", fmt.Sprintf("%d of %d walsenders are taken, and %d more are needed", f.senders, f.sendersMax, need),
			fmt.Sprintf("ALTER SYSTEM SET max_wal_senders = %d; -- then restart", f.senders+need+8))
	}
	if !f.replication {
		add(true, "PERMISSION_DENIED", fmt.Sprintf("the role %s may not read replication slots", d.user()),
			fmt.Sprintf("ALTER ROLE %s REPLICATION; -- on RDS and Aurora: GRANT rds_replication TO %s;", role, role))
	}
	if !f.mayPublish && !f.published {
		add(true, "PERMISSION_DENIED", fmt.Sprintf("the role %s may not make publications in the database %s", d.user(), d.database()),
			fmt.Sprintf("GRANT CREATE ON DATABASE %s TO %s; -- or make them as the owner of the tables", ident(d.database()), role))
	}
	if f.keep == "-1" {
		add(false, "SOURCE_WAL_UNLIMITED", "max_slot_wal_keep_size sets no limit, so a slot that is not read can fill the server's disk",
			"ALTER SYSTEM SET max_slot_wal_keep_size = '100GB'; SELECT pg_reload_conf(); -- less than the disk has to spare")
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
