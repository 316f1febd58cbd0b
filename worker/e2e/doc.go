// Package e2e tests the whole: the built programs, as processes of their own,
// against a real PostgreSQL, a real broker and a real Temporal.
//
// Each test mirrors databases of its own, under a region of its own. What the
// lake then holds is judged three times: by `millrace verify`; by a second
// reader of the WAL, which has its own slot, its own plugin (test_decoding) and
// its own parser; and by readers of Delta tables that are not ours.
package e2e
