package topic

import (
	"context"
	"errors"

	"github.com/millrace-io/millrace/activities/change"
)

// Schemas is what a schemas topic says: the shape of every table by OID and
// fingerprint, and each table's partition. Its methods may be called at the
// same time.
type Schemas struct{}

// LoadSchemas reads the schemas topic of topic to its end.
func (c *Client) LoadSchemas(ctx context.Context, topic string) (*Schemas, error) {
	return nil, errors.ErrUnsupported
}

// Table returns the shape named by oid and fp. It reads on when it has not
// seen it; [ErrSchemaUnknown] when the topic does not have it either.
func (s *Schemas) Table(ctx context.Context, oid uint32, fp change.Fingerprint) (*change.Table, error) {
	return nil, errors.ErrUnsupported
}

// Partition returns the partition of a table.
func (s *Schemas) Partition(oid uint32) (partition int, known bool) { return 0, false }

// Latest returns, of every table, the shape that was written last.
func (s *Schemas) Latest() []*change.Table { return nil }
