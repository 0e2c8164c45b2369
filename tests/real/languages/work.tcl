# The event loop: timers, a server with a client, pipelines of programs; lists and dictionaries.
set rounds [lindex $argv 0]
fconfigure stdout -buffering line
proc accept {channel address port} {
    fconfigure $channel -buffering line -blocking 0
    fileevent $channel readable [list answer $channel]
}
proc answer {channel} {
    if {[gets $channel line] >= 0} { puts $channel [string reverse $line] } elseif {[eof $channel]} { close $channel }
}
set server [socket -server accept -myaddr 127.0.0.1 0]
set client [socket 127.0.0.1 [lindex [fconfigure $server -sockname] 2]]
fconfigure $client -buffering line -blocking 0
fileevent $client readable {if {[gets $client line] >= 0} { set answered $line }}
set ticks 0
proc tick {} { incr ::ticks; after 10 tick }
tick
set words [dict create]
for {set step 0} {$step < $rounds} {incr step} {
    puts $client "question $step"
    vwait answered
    for {set i 0} {$i < 20000} {incr i} { dict incr words [expr {($i * 31 + $step) % 997}] }
    set piped [exec seq 1 1000 | sort -r | md5sum]
    set pipe [open "|sh -c {sleep 0.05; echo child $step}"]
    gets $pipe said
    close $pipe
    after 30 {set awake 1}
    vwait awake
    puts "$step $answered [dict size $words] [dict get $words 5] [string range $piped 0 7] $said [llength [lsort [dict values $words]]]"
}
puts [expr {$ticks > $rounds}]
