//go:build !race

package lab

// RaceDetector says whether this process was built with it.
const RaceDetector = false
