package workflows

// State is what a Database workflow carries across continue-as-new.
type State struct{}
