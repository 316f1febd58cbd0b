package main

import (
	"fmt"
	"os"
	"strings"
)

// Lines of a file between which the table of the last run stands.
const (
	tableBegins = "<!-- table -->\n"
	tableEnds   = "<!-- end of table -->\n"
)

// putTable puts a table, as printTable makes it, where a file has one.
func putTable(name, table string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read where the table goes: %w", err)
	}
	before, rest, begins := strings.Cut(string(b), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		return fmt.Errorf("%s has no lines %q and %q", name, strings.TrimSpace(tableBegins), strings.TrimSpace(tableEnds))
	}
	// What is printed above the columns keeps its lines as a quotation.
	head, rows, _ := strings.Cut(table, "\n\n")
	head = "> " + strings.ReplaceAll(head, "\n", "\\\n> ")
	text := before + tableBegins + head + "\n\n" + rows + tableEnds + after
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	return nil
}
