// Goroutines, a call into C, timers, a server on the loopback, child processes, garbage.
package main

/*
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static unsigned hash(const char *text, int n) { unsigned h = 2166136261u; for (int i = 0; i < n; i++) h = (h ^ (unsigned char)text[i]) * 16777619u; usleep(1000); return h; }
*/
import "C"

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

func main() {
	rounds, _ := strconv.Atoi(os.Args[1])
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					fmt.Fprintln(conn, strings.ToUpper(lines.Text()))
				}
			}()
		}
	}()
	client, _ := net.Dial("tcp", listener.Addr().String())
	answers := bufio.NewScanner(client)
	var ticks int64
	ticker := time.NewTicker(10 * time.Millisecond)
	go func() {
		for range ticker.C {
			atomic.AddInt64(&ticks, 1)
		}
	}()
	for step := 0; step < rounds; step++ {
		var group sync.WaitGroup
		var sum uint64
		for i := 0; i < 20; i++ {
			group.Add(1)
			go func(n int) {
				defer group.Done()
				made := map[int]string{}
				for j := 0; j < 2000; j++ {
					made[j*n%997] = strconv.Itoa(j)
				}
				text := C.CString(fmt.Sprint(n, len(made)))
				atomic.AddUint64(&sum, uint64(C.hash(text, C.int(C.strlen(text)))))
				C.free(unsafe.Pointer(text))
			}(step*20 + i)
		}
		group.Wait()
		fmt.Fprintln(client, "question", step)
		answers.Scan()
		child := exec.Command("sh", "-c", "cat; exit 3")
		child.Stdin = strings.NewReader(fmt.Sprint("text ", step))
		said, err := child.Output()
		fmt.Println(step, sum, answers.Text(), string(said), err)
		time.Sleep(20 * time.Millisecond)
	}
	fmt.Println(atomic.LoadInt64(&ticks) > int64(rounds))
}
