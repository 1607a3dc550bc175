package aurora

// Which versions of Aurora PostgreSQL there are, and what they can do.

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// EnginesAsOf is the day the table of engine versions was read from AWS's
// documentation. A newer version is not refused, only older ones that AWS retired.
const EnginesAsOf = "2026-11-23"

// offered are the minor versions AWS offers, by major version, oldest first. Majors that
// are not here and older are past their standard support.
// https://docs.aws.amazon.com/AmazonRDS/latest/AuroraPostgreSQLReleaseNotes/aurorapostgresql-release-calendar.html
var offered = map[int][]int{
	14: {6, 13, 15, 17, 18, 19, 20, 22},
	15: {8, 10, 12, 13, 14, 15, 17},
	16: {4, 6, 8, 9, 10, 11, 13},
	17: {4, 5, 6, 7, 9},
	18: {3, 4, 6},
}

const oldestMajor, newestMajor = 14, 18

// since are the versions from which a feature is there, by major version. A major
// version above those named has it.
var (
	sinceAutoPause   = map[int]int{14: 12, 15: 7, 16: 3} // docAutoPause
	sinceDataAPI     = map[int]int{14: 8, 15: 3, 16: 1, 17: 4}
	since256ACU      = map[int]int{14: 10, 15: 5, 16: 1}
	sinceIOOptimized = map[int]int{14: 7, 15: 2}
)

type engineVersion struct{ major, minor int }

func (v engineVersion) has(since map[int]int) bool { return v.minor >= since[v.major] }

// known reports whether the table has the version.
func (v engineVersion) known() bool { return slices.Contains(offered[v.major], v.minor) }

func parseEngine(version string) (engineVersion, error) {
	majorText, minorText, _ := strings.Cut(version, ".")
	major, err1 := strconv.ParseUint(majorText, 10, 8)
	minor, err2 := strconv.ParseUint(minorText, 10, 8)
	v := engineVersion{int(major), int(minor)}
	if err1 != nil || err2 != nil || fmt.Sprintf("%d.%d", v.major, v.minor) != version {
		return engineVersion{}, fmt.Errorf("%q is no Aurora PostgreSQL version; write major and minor, as %q", version, DefaultEngine)
	}
	return v, nil
}

// checkEngine refuses what AWS would refuse.
func checkEngine(p *problems, field, version string) (engineVersion, bool) {
	v, err := parseEngine(version)
	if err != nil {
		p.add(field, RuleEngine, "%v", err)
		return v, false
	}
	minors := offered[v.major]
	switch {
	case v.major < oldestMajor:
		p.add(field, RuleEngineRetired, "PostgreSQL %d is past its standard support on Aurora; write %q", v.major, DefaultEngine)
	case len(minors) > 0 && v.minor < minors[len(minors)-1] && !v.known():
		p.add(field, RuleEngineRetired, "Aurora does not offer %s (any more), as of %s; write %d.%d or %q", version, EnginesAsOf, v.major, minors[len(minors)-1], DefaultEngine)
	default:
		return v, true
	}
	return v, false
}
