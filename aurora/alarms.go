package aurora

// Alarms on what precedes an incident, and a dashboard that shows the same metrics.
//
// Capacity is watched per instance: without that dimension CloudWatch averages writer
// and readers, and a saturated writer beside an idle reader stays unseen. The proxy's
// metrics, their dimensions and units:
// https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.monitoring.html

import (
	"encoding/json"
	"fmt"
	"maps"
	"time"
)

const docProxyMetrics = docAUG + "rds-proxy.monitoring.html"

// alarm is one alarm and what the dashboard says of it.
type alarm struct {
	id, title, why, doc string
	metric              string
	dimensions          [][2]string // name and value; a value may hold ${Resource}
	statistic           string
	perMinute           bool    // the metric is a level published by several nodes each minute: add up, then average over time
	threshold           float64 // alarms above, or below if below is set
	below               bool
	points, of          int // how many data points of how many
}

func (s Spec) alarms() []alarm {
	var all []alarm
	for i, id := range s.instances() {
		if s.Capacity.Min == s.Capacity.Max {
			break // always at its maximum, and that is no news
		}
		instance := [][2]string{{"DBInstanceIdentifier", "${" + id + "}"}}
		n := i + 1
		all = append(all, alarm{
			id: fmt.Sprintf("AlarmCapacity%d", n), title: fmt.Sprintf("Instance %d: share of the maximum capacity in use", n), doc: docCapacity,
			why:    fmt.Sprintf("tells that instance %d has needed %d %% of its maximum capacity for a while: raise the maximum, or look for what needs it", n, s.Alarms.ACUPercent),
			metric: "ACUUtilization", dimensions: instance, statistic: "Average", threshold: float64(s.Alarms.ACUPercent), points: 5, of: 6,
		}, alarm{
			id: fmt.Sprintf("AlarmCeiling%d", n), title: fmt.Sprintf("Instance %d: capacity in ACU", n), doc: docCapacity,
			why:    fmt.Sprintf("tells that instance %d is at its maximum capacity and cannot grow any more", n),
			metric: "ServerlessDatabaseCapacity", dimensions: instance, statistic: "Average", threshold: s.Capacity.Max, points: 2, of: 2,
		})
	}
	if s.Proxy.Off {
		return all
	}
	proxy := [][2]string{{"ProxyName", "${Proxy}"}}
	all = append(all, alarm{
		id: "AlarmPinned", title: "Pinned sessions", doc: docAUG + "rds-proxy-pinning.html",
		why:    "tells that clients keep database connections for themselves, and which statements make them is in the proxy's log",
		metric: "DatabaseConnectionsCurrentlySessionPinned", dimensions: proxy, perMinute: true, threshold: float64(s.Alarms.PinnedSessions), points: 5, of: 6,
	}, alarm{
		id: "AlarmBorrow", title: "Time to borrow a connection, in microseconds", doc: docProxyMetrics,
		why:    "tells that clients wait for database connections",
		metric: "DatabaseConnectionsBorrowLatency", dimensions: proxy, statistic: "Average", threshold: float64(s.Alarms.BorrowLatency / time.Microsecond), points: 5, of: 6,
	}, alarm{
		id: "AlarmLogins", title: "Failed logins", doc: docProxyMetrics,
		why:    "tells that clients are refused: a policy that is missing, a token for another host, a password that was rotated",
		metric: "ClientConnectionsSetupFailedAuth", dimensions: proxy, statistic: "Sum", threshold: float64(s.Alarms.FailedLogins), points: 1, of: 1,
	}, s.availability("AlarmWriter", "READ_WRITE", "writer"))
	if s.hasReaderEndpoint() {
		all = append(all, s.availability("AlarmReaders", "READ_ONLY", "readers"))
	}
	return all
}

// availability is published with the role of the target only.
func (s Spec) availability(id, role, who string) alarm {
	return alarm{
		id: id, title: "Availability of the " + who + ", in percent", doc: docProxyMetrics,
		why:        "tells that the proxy does not reach the " + who,
		metric:     "AvailabilityPercentage",
		dimensions: [][2]string{{"ProxyName", "${Proxy}"}, {"TargetGroup", "default"}, {"TargetRole", role}},
		statistic:  "Average", threshold: 90, below: true, points: 2, of: 2,
	}
}

func (s Spec) addAlarms(t *template) {
	period := seconds(s.Alarms.Period)
	for _, a := range s.alarms() {
		p := props{
			"AlarmDescription":   s.Name + ": " + a.why,
			"ComparisonOperator": "GreaterThanOrEqualToThreshold",
			"Threshold":          a.threshold,
			"EvaluationPeriods":  a.of, "DatapointsToAlarm": a.points,
			"TreatMissingData": "notBreaching",
		}
		if a.below {
			p["ComparisonOperator"] = "LessThanThreshold"
		}
		var dimensions []props
		for _, d := range a.dimensions {
			dimensions = append(dimensions, props{"Name": d[0], "Value": substituted(d[1])})
		}
		if a.perMinute {
			p["Metrics"] = []props{
				{"Id": "level", "Expression": fmt.Sprintf("total / %d", period/60), "Label": a.title, "ReturnData": true},
				{"Id": "total", "ReturnData": false, "MetricStat": props{
					"Stat": "Sum", "Period": period,
					"Metric": props{"Namespace": "AWS/RDS", "MetricName": a.metric, "Dimensions": dimensions},
				}},
			}
		} else {
			maps.Copy(p, props{"Namespace": "AWS/RDS", "MetricName": a.metric, "Dimensions": dimensions, "Statistic": a.statistic, "Period": period})
		}
		if s.Alarms.TopicARN != "" {
			p["AlarmActions"] = []string{s.Alarms.TopicARN}
			p["OKActions"] = []string{s.Alarms.TopicARN}
		}
		t.add(a.id, "AWS::CloudWatch::Alarm", a.why, a.doc, p)
	}
	t.add("Dashboard", "AWS::CloudWatch::Dashboard", "shows what the alarms watch", "https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Dashboards.html", props{
		"DashboardName": sub(s.Name + "-${AWS::Region}"),
		"DashboardBody": sub(s.dashboard()),
	})
}

// substituted is a value that may refer to a resource.
func substituted(value string) any {
	if len(value) > 3 && value[:2] == "${" {
		return ref(value[2 : len(value)-1])
	}
	return value
}

// dashboard is the body of the dashboard, with ${Resource} where CloudFormation is to
// put names.
func (s Spec) dashboard() string {
	widgets := []props{} // and not null, where there are no alarms
	for i, a := range s.alarms() {
		metric := []any{"AWS/RDS", a.metric}
		for _, d := range a.dimensions {
			metric = append(metric, d[0], d[1])
		}
		stat, period := a.statistic, seconds(s.Alarms.Period)
		if a.perMinute {
			stat, period = "Sum", 60
		}
		widgets = append(widgets, props{
			"type": "metric", "x": i % 2 * 12, "y": i / 2 * 6, "width": 12, "height": 6,
			"properties": props{
				"title": a.title, "region": "${AWS::Region}", "view": "timeSeries", "stat": stat, "period": period,
				"metrics":     []any{metric},
				"annotations": props{"horizontal": []props{{"label": "alarm", "value": a.threshold}}},
			},
		})
	}
	body, err := json.Marshal(props{"widgets": widgets})
	if err != nil {
		panic(err) // strings and numbers
	}
	return string(body)
}
