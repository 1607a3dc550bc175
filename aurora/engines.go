package aurora

// EnginesAsOf is the day the table of engine versions was read from AWS's
// documentation. A newer version is not refused, only older ones that AWS retired.
const EnginesAsOf = "2026-11-23"
