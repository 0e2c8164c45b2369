#!/bin/bash
# A session of tmux with two windows and three shells; keys are sent to them, they answer through a FIFO, and a screen is read.
export TMUX_TMPDIR=$PWD PS1='ready> '
tmux='tmux -L job -f /dev/null'
mkfifo answers counts
exec 7<> answers 8<> counts
$tmux new-session -d -s work -x 80 -y 24 'exec bash --norc --noprofile' || exit 1
$tmux split-window -d -t work 'exec bash --norc --noprofile'
$tmux new-window -d -t work -n loop 'bash -c "for ((i = 1; ; i++)); do echo \$i > counts; done"'
for ((step = 1; step <= $1; step++)); do
    $tmux send-keys -t work:0.0 "n=\$((n + $step)); echo sum \$n > answers" Enter
    read -r -t 60 -u 7 sum || { echo "waited for the first shell in vain"; exit 1; }
    $tmux send-keys -t work:0.1 "clear; seq $step $((step + 3)) | tac; echo listed $step > answers" Enter
    read -r -t 60 -u 7 listed || { echo "waited for the second shell in vain"; exit 1; }
    wanted=$(seq $step $((step + 3)) | tac)
    for ((n = 0; n < 1000; n++)); do
        shown=$($tmux capture-pane -p -t work:0.1 | grep -x '[0-9][0-9]*')
        [[ $shown == "$wanted" ]] && break
        sleep 0.05
    done
    read -r -t 60 -u 8 count
    $tmux set-buffer "kept $step"
    sleep 0.1
    echo "$step $sum $listed $count $($tmux show-buffer) $($tmux list-windows -t work -F '#{window_index} #{window_panes}' | tr '\n' ,)" $shown
done
$tmux kill-server
while $tmux has-session 2> /dev/null; do sleep 0.05; done
