package pgsource

import (
	"fmt"
	"strings"
)

// Host is who runs a server, as far as its roles and functions show. It decides
// who can change what, and how.
type Host string

// The hosts that are told apart. What is none of them counts as SelfRun.
const (
	SelfRun  Host = "self-run"
	RDS      Host = "RDS"
	Aurora   Host = "Aurora"
	CloudSQL Host = "Cloud SQL"
	Azure    Host = "Azure"
)

// hostSQL is an expression that gives a Host.
const hostSQL = `CASE
	WHEN to_regproc('pg_catalog.aurora_version') IS NOT NULL THEN 'Aurora'
	WHEN to_regrole('rds_superuser') IS NOT NULL THEN 'RDS'
	WHEN to_regrole('cloudsqlsuperuser') IS NOT NULL THEN 'Cloud SQL'
	WHEN to_regrole('azure_pg_admin') IS NOT NULL THEN 'Azure'
	ELSE 'self-run' END`

// admin is the role that may do what a superuser does.
func (h Host) admin() string {
	switch h {
	case RDS, Aurora:
		return "a member of rds_superuser"
	case CloudSQL:
		return "a member of cloudsqlsuperuser"
	case Azure:
		return "a member of azure_pg_admin"
	}
	return "a superuser"
}

// operator is who changes settings of the server.
func (h Host) operator() string {
	switch h {
	case RDS, Aurora:
		return "an administrator of the AWS account"
	case CloudSQL:
		return "an administrator of the Google Cloud project"
	case Azure:
		return "an administrator of the Azure subscription"
	}
	return "a superuser"
}

// flags are the names that hosts have for settings which they do not let be set
// by their own.
var flags = map[Host]map[string][2]string{
	RDS:      {"wal_level": {"rds.logical_replication", "1"}},
	Aurora:   {"wal_level": {"rds.logical_replication", "1"}},
	CloudSQL: {"wal_level": {"cloudsql.logical_decoding", "on"}},
}

// megabytes are settings that parameter groups and flags take as a number.
var megabytes = map[string]string{"100GB": "102400"}

// set is how a setting of the server is changed.
func (h Host) set(name, value string, restart bool) string {
	if flag, other := flags[h][name]; other {
		name, value = flag[0], flag[1]
	}
	if n := megabytes[value]; n != "" && h != SelfRun {
		value = n
	}
	method, group := "immediate", "modify-db-parameter-group --db-parameter-group-name"
	if restart {
		method = "pending-reboot"
	}
	switch h {
	case Aurora:
		group = "modify-db-cluster-parameter-group --db-cluster-parameter-group-name"
		fallthrough
	case RDS:
		text := fmt.Sprintf("aws rds %s GROUP --parameters ParameterName=%s,ParameterValue=%s,ApplyMethod=%s", group, name, value, method)
		if restart {
			text += "  # then reboot the instance"
		}
		return text
	case CloudSQL:
		return fmt.Sprintf("gcloud sql instances patch INSTANCE --database-flags=%s=%s  # beside the flags that are set already: they are replaced", name, value)
	case Azure:
		text := fmt.Sprintf("az postgres flexible-server parameter set --resource-group GROUP --server-name SERVER --name %s --value %s", name, value)
		if restart {
			text += "  # then restart the server"
		}
		return text
	}
	if restart {
		return fmt.Sprintf("ALTER SYSTEM SET %s = %s; -- then restart the server", name, literal(value))
	}
	return fmt.Sprintf("ALTER SYSTEM SET %s = %s; SELECT pg_reload_conf();", name, literal(value))
}

// replication lets a role read slots.
func (h Host) replication(role string) string {
	if h == RDS || h == Aurora {
		return fmt.Sprintf("GRANT rds_replication TO %s;", role)
	}
	return fmt.Sprintf("ALTER ROLE %s REPLICATION;", role)
}

// by says who can carry out the remedy of a problem; owner is that of its table,
// empty where it has none. Empty means whoever keeps the fleet file.
func (h Host) by(p *Problem, owner string) string {
	table := h.admin()
	if owner != "" {
		table = "the owner " + owner + ", or " + h.admin()
	}
	switch p.Code {
	case "WAL_LEVEL", "NO_FREE_SLOT", "SOURCE_WAL_UNLIMITED", "SOURCE_WAL_SMALL", "SOURCE_PLUGIN", "SOURCE_TIMEOUT", "SLOT_TIMEOUT", "SOURCE_VERSION", "SOURCE_VERSION_OLD", "CLOCK_SKEW":
		return h.operator()
	case "PERMISSION_DENIED", "ROW_SECURITY", "TABLE_NOT_OWNED", "SLOT_ABANDONED", "SOURCE_BLOCKED":
		return h.admin()
	case "TABLE_PRIVILEGE", "IDENTITY_MISSING", "PARTITION_KIND":
		return table
	case "PUBLICATION", "PUBLICATION_FILTERED", "PUBLICATION_EXTRA":
		return "the publication's owner, or " + h.admin()
	case "TABLE_KIND":
		if strings.HasPrefix(p.Remedy, "ALTER ") {
			return table
		}
	}
	return ""
}
