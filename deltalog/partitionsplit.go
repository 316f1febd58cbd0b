package deltalog

import (
	"fmt"
	"strconv"

	"github.com/millrace-io/millrace/deltalog/datafile"
)

// splitter tells which partitions rows belong to.
type splitter struct {
	columns []string
	parts   map[string]*part // by their values in columns
	texts   map[string]*part // by their values in the log, where some are the same
	batch   int              // counts batches
	cols    []*datafile.Column
	key     []byte
}

// part is one partition of a table.
type part struct {
	values map[string]*string // by the names of columns; nil where there are none
	batch  int                // the batch that rows is of
	rows   []int32
	open   *newFile // that an upsert writes rows to; nil means none
}

func newSplitter(columns []string) *splitter {
	return &splitter{columns: columns, parts: map[string]*part{}, texts: map[string]*part{}}
}

// split returns the partitions of the rows of a batch, in the order in which they
// come first, with the places of their rows. These are valid until the next call.
func (s *splitter) split(b *datafile.Batch) ([]*part, error) {
	s.batch++
	s.cols = s.cols[:0]
	for _, name := range s.columns {
		s.cols = append(s.cols, b.Column(name))
	}
	var list []*part
	for row := range b.Rows() {
		p, err := s.of(row)
		if err != nil {
			return nil, err
		}
		if p.batch != s.batch {
			p.batch, p.rows = s.batch, p.rows[:0]
			list = append(list, p)
		}
		p.rows = append(p.rows, int32(row))
	}
	return list, nil
}

// of returns the partition of a row; columns that are missing are NULL.
func (s *splitter) of(row int) (*part, error) {
	s.key = s.key[:0]
	for i, c := range s.cols {
		if c == nil {
			s.key = append(s.key, 0)
			continue
		}
		s.key = datafile.AppendCanonical(s.key, s.cols[i:i+1], row)
	}
	if p := s.parts[string(s.key)]; p != nil {
		return p, nil
	}
	values := make(map[string]*string, len(s.columns))
	var text []byte
	for i, name := range s.columns {
		var v *string
		if c := s.cols[i]; c != nil {
			var err error
			if v, err = partitionText(c, row); err != nil {
				return nil, fmt.Errorf("column %s: %w", name, err)
			}
		}
		values[name] = v
		if v != nil {
			text = strconv.AppendQuote(text, *v)
		}
		text = append(text, ',')
	}
	p := s.texts[string(text)]
	if p == nil {
		p = &part{values: values}
		s.texts[string(text)] = p
	}
	s.parts[string(s.key)] = p
	return p, nil
}
