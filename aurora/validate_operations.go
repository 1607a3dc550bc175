package aurora

// What is refused in how a cluster is kept: encryption, insights, backups, logs,
// alarms, tags.

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"
)

var (
	keyARN       = regexp.MustCompile(`^arn:[a-z-]+:kms:[a-z0-9-]+:\d{12}:key/[A-Za-z0-9-]+$`)
	topicARN     = regexp.MustCompile(`^arn:[a-z-]+:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_.-]+$`)
	dailyWindow  = regexp.MustCompile(`^([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)$`)
	weeklyWindow = regexp.MustCompile(`^(mon|tue|wed|thu|fri|sat|sun):([01]\d|2[0-3]):([0-5]\d)-(mon|tue|wed|thu|fri|sat|sun):([01]\d|2[0-3]):([0-5]\d)$`)
)

// logDays are the periods CloudWatch Logs keeps logs for.
var logDays = []int{1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653}

func (s Spec) checkOperations(p *problems) {
	if s.KMSKey != "" && !keyARN.MatchString(s.KMSKey) {
		p.add("KMSKey", RuleEncryption, "%q is no ARN of a key; write arn:aws:kms:REGION:ACCOUNT:key/ID, not an alias", s.KMSKey)
	}
	if s.Insights.Off {
		if s.Insights.Advanced {
			p.add("Insights.Advanced", RuleInsights, "Insights are off; take one of the two away")
		}
	} else {
		checkInsights(p, "Insights", s.Insights.Advanced, s.Insights.Days)
	}
	within(p, "Backup.Days", RuleBackup, s.Backup.Days, 1, 35)
	if w := s.Backup.Window; w != "" && (!dailyWindow.MatchString(w) || windowMinutes(w) < 30) {
		p.add("Backup.Window", RuleBackup, "%q is no window of at least 30 minutes; write it in UTC as 02:00-03:00", w)
	}
	if w := s.MaintenanceWindow; w != "" && (!weeklyWindow.MatchString(w) || weekMinutes(w) < 30) {
		p.add("MaintenanceWindow", RuleBackup, "%q is no window of at least 30 minutes; write it in UTC as sun:04:00-sun:05:00", w)
	}
	if !slices.Contains(logDays, s.LogDays) {
		p.add("LogDays", RuleLogs, "CloudWatch Logs cannot keep logs for %d days; write one of %v", s.LogDays, logDays)
	}
}

func windowMinutes(w string) int {
	m := dailyWindow.FindStringSubmatch(w)
	return (clock(m[3], m[4]) - clock(m[1], m[2]) + 24*60) % (24 * 60)
}

func weekMinutes(w string) int {
	m := weeklyWindow.FindStringSubmatch(w)
	const days, week = "montuewedthufrisatsun", 7 * 24 * 60
	day := func(name string) int { return strings.Index(days, name) / 3 * 24 * 60 }
	return (day(m[4]) + clock(m[5], m[6]) - day(m[1]) - clock(m[2], m[3]) + week) % week
}

func clock(hours, minutes string) int {
	number := func(s string) int { return int(s[0]-'0')*10 + int(s[1]-'0') }
	return number(hours)*60 + number(minutes)
}

// checkInsights looks at a Spec's or a template's insights.
func checkInsights(p *problems, field string, advanced bool, days int) {
	const advancedDays = 465
	switch {
	case days != 7 && days != 731 && (days < 31 || days > 713 || days%31 != 0):
		p.add(field+".Days", RuleInsights, "data cannot be kept for %d days; write 7, a multiple of 31 up to 713, or 731", days)
	case advanced && days < advancedDays:
		p.add(field+".Days", RuleInsights, "the advanced mode needs %d days at least, and has %d", advancedDays, days)
	}
}

func (s Spec) checkAlarms(p *problems) {
	a := s.Alarms
	if a.Off {
		return
	}
	if a.TopicARN != "" && !topicARN.MatchString(a.TopicARN) {
		p.add("Alarms.TopicARN", RuleAlarm, "%q is no ARN of an SNS topic", a.TopicARN)
	}
	checkPeriod(p, "Alarms.Period", a.Period)
	if a.ACUPercent != 0 { // else the capacity does not change, or is none
		within(p, "Alarms.ACUPercent", RuleAlarm, a.ACUPercent, 1, 100)
		checkCapacityAlarm(p, "Alarms.ACUPercent", float64(a.ACUPercent), s.Capacity.leastPercent(), 100)
	}
	within(p, "Alarms.PinnedSessions", RuleAlarm, a.PinnedSessions, 1, math.MaxInt32)
	within(p, "Alarms.FailedLogins", RuleAlarm, a.FailedLogins, 1, math.MaxInt32)
	if a.BorrowLatency < time.Millisecond || a.BorrowLatency > 5*time.Minute {
		p.add("Alarms.BorrowLatency", RuleAlarm, "it is %v; write a time from 1ms to 5m, the longest a client may wait", a.BorrowLatency)
	}
}

// checkCapacityAlarm looks at the threshold of a Spec's or a template's alarm on capacity.
func checkCapacityAlarm(p *problems, field string, threshold, least, most float64) {
	switch {
	case threshold <= 0 || least > most: // wrong in another way
	case least == most:
		p.add(field, RuleAlarm, "minimum and maximum capacity are the same, so the alarm would always be on; take it away, or make the maximum more than the minimum")
	case threshold <= least:
		p.add(field, RuleAlarm, "it is %g, and an instance at its minimum capacity is at %.4g already, so the alarm would always be on; write more than that, up to %g", threshold, least, most)
	}
}

// checkPeriod looks at the period of a Spec's or a template's alarms.
func checkPeriod(p *problems, field string, d time.Duration) {
	if d < time.Minute || d > time.Hour || d%time.Minute != 0 {
		p.add(field, RuleAlarmPeriod, "it is %v; write whole minutes up to an hour: RDS publishes one value a minute", d)
	}
}

var tagText = regexp.MustCompile(`^[A-Za-z0-9 _.:/=+@-]*$`)

func (s Spec) checkTags(p *problems) {
	if len(s.Tags) > 40 {
		p.add("Tags", RuleTags, "there are %d; write at most 40", len(s.Tags))
	}
	for _, key := range slices.Sorted(maps.Keys(s.Tags)) {
		value := s.Tags[key]
		field := fmt.Sprintf("Tags[%q]", key)
		if key == "" || len(key) > 128 || len(value) > 128 || !tagText.MatchString(key) || !tagText.MatchString(value) {
			p.add(field, RuleTags, "write letters, digits, spaces and _.:/=+@- alone, at most 128 each in key and value")
		}
		if strings.HasPrefix(strings.ToLower(key), "aws:") {
			p.add(field, RuleTags, "keys that begin with aws: belong to AWS; write another")
		}
	}
}
