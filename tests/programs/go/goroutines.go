// Tests the Go runtime with cgo: goroutines, calls into C, timers, preemption by SIGURG, os/signal, child processes, and an HTTP server with its
// clients on loopback. What it prints does not depend on when it is interrupted.
package main

/*
#include <errno.h>
#include <time.h>
static long spin(long n) {
    volatile long sum = 0;
    for (long i = 0; i < n; i++) sum += i;
    return sum;
}
static int doze(long milliseconds) {
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    int result;
    // Signals that the runtime handles end it early.
    while ((result = nanosleep(&time, &time)) != 0 && errno == EINTR);
    return result;
}
*/
import "C"

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"
)

func check(holds bool, what string, err error) {
	if !holds || err != nil {
		fmt.Fprintf(os.Stderr, "goroutines.go: %s does not hold (%v)\n", what, err)
		os.Exit(1)
	}
}

// Goroutines that hand numbers on, some through C.
func relay(rounds int) int {
	first := make(chan int)
	in := first
	for i := 0; i < 50; i++ {
		out := make(chan int)
		go func(i int, in, out chan int) {
			for number := range in {
				if i%10 == 0 {
					check(int(C.spin(1000)) == 499500, "a sum in C", nil)
				}
				out <- number + 1
			}
			close(out)
		}(i, in, out)
		in = out
	}
	go func() {
		for round := 0; round < rounds; round++ {
			first <- round
		}
		close(first)
	}()
	sum := 0
	for number := range in {
		sum += number
	}
	return sum
}

// One that never calls anything: it is preempted by signals alone.
func busy(done *bool) {
	count := uint64(1)
	for !*done {
		count = count*6364136223846793005 + 1
	}
	*done = count == 0
}

func main() {
	rounds, err := strconv.Atoi(os.Args[1])
	check(rounds > 0, "a number of rounds", err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(true, "listen", err)
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.URL.Path, body)
	}))
	var done bool
	go busy(&done)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	var wait sync.WaitGroup
	ticks := make([]int, 4)
	for i := range ticks {
		wait.Add(1)
		go func(i int) {
			defer wait.Done()
			ticker := time.NewTicker(10 * time.Millisecond)
			for ; ticks[i] < rounds; ticks[i]++ {
				<-ticker.C
			}
		}(i)
	}
	for i := 0; i < 3; i++ {
		wait.Add(1)
		go func(i int) {
			defer wait.Done()
			for round := 0; round < rounds/3; round++ {
				path := fmt.Sprintf("/%d/%d", i, round)
				answer, err := http.Post("http://"+listener.Addr().String()+path, "text/plain", io.LimitReader(zeroes{}, 5000))
				check(true, "post", err)
				body, err := io.ReadAll(answer.Body)
				answer.Body.Close()
				check(len(body) == len(path)+1+5000, "the length of an answer", err)
				check(C.doze(10) == 0, "a sleep in C", nil)
			}
		}(i)
	}
	for round := 0; round < rounds; round += 20 {
		output, err := exec.Command("echo", strconv.Itoa(round)).Output()
		check(string(output) == strconv.Itoa(round)+"\n", "a child's output", err)
		check(true, "kill", syscall.Kill(os.Getpid(), syscall.SIGHUP))
		<-hangups
		fmt.Println("relayed", relay(100), "after", round/20)
		time.Sleep(100 * time.Millisecond)
	}
	wait.Wait()
	done = true
	fmt.Println("ticks", ticks)
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '0'
	}
	return len(p), nil
}
