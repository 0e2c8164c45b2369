#!/bin/bash
# A detached session of screen with two windows; text is stuffed into them, they answer through a FIFO, and a screen is copied.
export SCREENDIR=$PWD/screens PS1='ready> '
mkdir -m 700 "$SCREENDIR"
mkfifo answers
exec 7<> answers
screen='screen -c /dev/null'
enter=$'\r'
$screen -dmS work bash --norc --noprofile || exit 1
until $screen -S work -p 0 -X stuff "$enter" > /dev/null; do sleep 0.1; done
$screen -S work -X screen -t second bash --norc --noprofile
until $screen -S work -p 1 -X stuff "$enter" > /dev/null; do sleep 0.1; done
sleep 0.5
for ((step = 1; step <= $1; step++)); do
    # Screen would expand a dollar in what is stuffed.
    $screen -S work -p 0 -X stuff "let n+=$step; declare -p n | tee answers$enter"
    read -r -t 60 -u 7 sum || { echo "waited for the first shell in vain"; exit 1; }
    $screen -S work -p 1 -X stuff "clear; seq $step $((step + 3)) | tac; echo listed $step > answers$enter"
    read -r -t 60 -u 7 listed || { echo "waited for the second shell in vain"; exit 1; }
    for ((n = 0; n < 300; n++)); do
        $screen -S work -p 0 -X hardcopy "$PWD/copy"
        sleep 0.1
        shown=$(grep -x "$sum *" copy) && break
    done
    echo "$step $sum $listed" $shown
done
$screen -S work -X quit
