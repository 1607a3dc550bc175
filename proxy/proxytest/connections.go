package proxytest

// Who is connected: the clients that have signed in and the connections to the database, at one
// moment, for a page that shows them.

import (
	"cmp"
	"slices"
	"time"
)

// A ClientConnection is a client that has signed in, as it was at one moment.
type ClientConnection struct {
	ID                 uint64    // its number, as in the log
	RemoteAddr         string    // where the client is
	User               string    // the database user
	Database           string    // the database
	Application        string    // application_name, if the client set one
	DatabaseConnection uint64    // the number of the database connection it has borrowed, 0 if none
	InTransaction      bool      // it has borrowed that for a transaction
	Pinned             bool      // it keeps it until it ends
	LastActive         time.Time // when its last request was completed, or it signed in; this moment, if a request is under way
}

// A DatabaseConnection is a connection of the pool, as it was at one moment.
type DatabaseConnection struct {
	ID               uint64    // its number, as in the log
	Addr             string    // of the database
	User             string    // the database user
	Database         string    // the database
	Opened           time.Time // when it was
	ClientConnection uint64    // the number of the client connection that has borrowed it, 0 if none
}

// ClientConnections lists the clients that have signed in, in the order in which they came.
func (p *Proxy) ClientConnections() []ClientConnection {
	p.users.mu.Lock()
	sessions := make([]*clientSession, 0, len(p.users.sessions))
	for s := range p.users.sessions {
		sessions = append(sessions, s)
	}
	p.users.mu.Unlock()
	list := make([]ClientConnection, 0, len(sessions))
	for _, s := range sessions {
		c := ClientConnection{
			ID: s.id, RemoteAddr: s.remote, User: s.info.user, Database: s.info.database,
			Application: s.info.params["application_name"],
		}
		s.mu.Lock()
		c.LastActive = s.idleSince
		if s.busy() {
			c.LastActive = time.Now()
		}
		c.Pinned = s.pinned
		if s.db != nil {
			c.DatabaseConnection, c.InTransaction = s.db.id, s.tx != 'I'
		}
		s.mu.Unlock()
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b ClientConnection) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// DatabaseConnections lists the connections of the pool, the oldest first.
func (p *Proxy) DatabaseConnections() []DatabaseConnection {
	p.pool.mu.Lock()
	conns := make([]*dbConn, 0, len(p.pool.conns))
	for db := range p.pool.conns {
		conns = append(conns, db)
	}
	p.pool.mu.Unlock()
	list := make([]DatabaseConnection, 0, len(conns))
	for _, db := range conns {
		d := DatabaseConnection{
			ID: db.id, Addr: db.conn.RemoteAddr().String(), User: db.info.user, Database: db.info.database, Opened: db.born,
		}
		if s := db.owner.Load(); s != nil {
			d.ClientConnection = s.id
		}
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b DatabaseConnection) int { return cmp.Compare(a.ID, b.ID) })
	return list
}
