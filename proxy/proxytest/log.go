package proxytest

import (
	"context"
	"fmt"
	"log/slog"
)

// proxyLog writes lines in the words of RDS Proxy's log. Its default endpoint is called "default"
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.troubleshooting.html).
type proxyLog struct {
	logger   *slog.Logger
	endpoint string
}

// client logs a line about a client connection.
func (l *proxyLog) clientf(level slog.Level, id uint64, format string, args ...any) {
	if l.logger.Enabled(context.Background(), level) {
		l.logger.Log(context.Background(), level,
			fmt.Sprintf("[proxyEndpoint=%s] [clientConnection=%d] ", l.endpoint, id)+fmt.Sprintf(format, args...))
	}
}

// database logs a line about a database connection.
func (l *proxyLog) databasef(level slog.Level, id uint64, format string, args ...any) {
	if l.logger.Enabled(context.Background(), level) {
		l.logger.Log(context.Background(), level,
			fmt.Sprintf("[proxyEndpoint=%s] [dbConnection=%d] ", l.endpoint, id)+fmt.Sprintf(format, args...))
	}
}
