// Package activities holds the steps of Millrace, one exported method each:
// they join the stages (source, topic, batch, lake) and report to Temporal.
// It is the only code that both does I/O and knows Temporal.
package activities
