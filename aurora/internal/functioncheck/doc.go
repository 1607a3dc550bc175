// Package functioncheck runs the functions inside our templates, as Lambda would, with
// python3 and a stand-in for AWS's SDK that keeps secrets and records SQL. It is a
// module of its own because its tests need python3.
package functioncheck
