// gorilla/websocket: the hub of its chat example, with one prepared message for all connections.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/gorilla/websocket"
)

const (
	maxMessage = 1 << 20
	// Messages that may wait for one client; the hub drops the client that would need more.
	queueLength = 1024
)

type client struct {
	connection *websocket.Conn
	send       chan *websocket.PreparedMessage
}

type hub struct {
	register   chan *client
	unregister chan *client
	broadcast  chan *websocket.PreparedMessage
}

func (h *hub) run() {
	clients := make(map[*client]struct{})
	leave := func(c *client) {
		if _, member := clients[c]; member {
			delete(clients, c)
			close(c.send)
		}
	}
	for {
		select {
		case c := <-h.register:
			clients[c] = struct{}{}
		case c := <-h.unregister:
			leave(c)
		case message := <-h.broadcast:
			for c := range clients {
				select {
				case c.send <- message:
				default:
					leave(c)
				}
			}
		}
	}
}

func (c *client) read(h *hub) {
	defer func() { h.unregister <- c }()
	c.connection.SetReadLimit(maxMessage)
	for {
		kind, payload, err := c.connection.ReadMessage()
		if err != nil {
			return
		}
		message, err := websocket.NewPreparedMessage(kind, payload)
		if err != nil {
			return
		}
		h.broadcast <- message
	}
}

func (c *client) write() {
	defer c.connection.Close()
	for message := range c.send {
		if c.connection.WritePreparedMessage(message) != nil {
			return
		}
	}
}

func main() {
	port := flag.Int("port", 0, "port to listen on, 0 picks one")
	flag.Parse()

	h := &hub{
		register:   make(chan *client),
		unregister: make(chan *client),
		broadcast:  make(chan *websocket.PreparedMessage),
	}
	go h.run()

	upgrader := websocket.Upgrader{
		ReadBufferSize:  1024,
		WriteBufferPool: &sync.Pool{},
		CheckOrigin:     func(*http.Request) bool { return true },
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		connection, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		c := &client{connection: connection, send: make(chan *websocket.PreparedMessage, queueLength)}
		h.register <- c
		// Two goroutines of their own, so that the handler returns and the memory of the request can go.
		go c.write()
		go c.read(h)
	})

	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening 127.0.0.1", listener.Addr().(*net.TCPAddr).Port)

	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	go func() { log.Fatal(http.Serve(listener, nil)) }()
	<-terminated
}
