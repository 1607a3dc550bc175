package main

// This file reads the task definition's environment, and sizes the pool.

import (
	"fmt"
	"strconv"
	"time"
)

const (
	// ecsStopTimeout is ECS's for a container that names none.
	ecsStopTimeout = 30 * time.Second
	// stopMargin is kept of the stop timeout for closing the pool.
	stopMargin = time.Second
)

type config struct {
	databaseURL string
	port        string
	poolSize    int32
	drainDelay  time.Duration // the load balancer's: health check interval times unhealthy threshold
	stopTimeout time.Duration // the container's stopTimeout; ECS's own is too short
}

func readConfig(getenv func(string) string) (config, error) {
	c := config{databaseURL: getenv("DATABASE_URL"), port: getenv("PORT"), drainDelay: 5 * time.Second, stopTimeout: ecsStopTimeout}
	if c.port == "" {
		c.port = "8080"
	}
	for name, d := range map[string]*time.Duration{"DRAIN_DELAY": &c.drainDelay, "STOP_TIMEOUT": &c.stopTimeout} {
		if err := readDuration(getenv, name, d); err != nil {
			return c, err
		}
	}
	// The last request may come at the end of the delay, and take its whole time.
	if needed := c.drainDelay + readTimeout + requestTimeout + stopMargin; needed > c.stopTimeout {
		return c, fmt.Errorf("STOP_TIMEOUT=%s is less than the %s of DRAIN_DELAY=%s, a request (%s to read, %s to answer) and the pool (%s): raise the container's stopTimeout, and STOP_TIMEOUT with it",
			c.stopTimeout, needed, c.drainDelay, readTimeout, requestTimeout, stopMargin)
	}
	budget, err := readCount(getenv, "DB_CONNECTIONS")
	if err != nil {
		return c, err
	}
	tasks, err := readCount(getenv, "MAX_TASKS")
	if err != nil {
		return c, err
	}
	c.poolSize, err = poolSize(budget, tasks)
	return c, err
}

// poolSize divides what the database lends this service by the most tasks there can be:
// the desired count, autoscaled to its maximum, times the deployment's maximumPercent,
// since old and new tasks run side by side.
//
// Through RDS Proxy, connections are the proxy's to the database (max_connections times
// MaxConnectionsPercent). A pool may have more than its share, which then queues at the
// proxy and not in the pool, where the wait would be seen.
func poolSize(connections, tasks int) (int32, error) {
	n := connections / tasks
	if n < 1 {
		return 0, fmt.Errorf("DB_CONNECTIONS=%d does not give each of MAX_TASKS=%d a connection", connections, tasks)
	}
	return int32(min(n, 1000)), nil
}

func readDuration(getenv func(string) string, name string, d *time.Duration) (err error) {
	if text := getenv(name); text != "" {
		if *d, err = time.ParseDuration(text); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func readCount(getenv func(string) string, name string) (int, error) {
	n, err := strconv.Atoi(getenv(name))
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%s=%q: write how many, 1 or more", name, getenv(name))
	}
	return n, nil
}
