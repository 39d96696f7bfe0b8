// Package ui is what a user of labctl sees: results as tables, JSON or YAML on
// stdout, and the story of a workflow on stderr, live on a terminal and as plain
// lines elsewhere.
package ui
