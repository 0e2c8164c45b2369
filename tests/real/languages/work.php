<?php
// Arrays, generators, a child by proc_open, a forked child with a socket pair, stream_select, signals.
$rounds = (int) $argv[1];
pcntl_async_signals(true);
$usr = 0;
pcntl_signal(SIGUSR1, function () use (&$usr) { $usr++; });
$pair = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
$child = pcntl_fork();
if ($child === 0) {
    fclose($pair[0]);
    while (($line = fgets($pair[1])) !== false) fwrite($pair[1], strtoupper($line));
    exit(5);
}
fclose($pair[1]);
$server = stream_socket_server('tcp://127.0.0.1:0');
$client = stream_socket_client('tcp://' . stream_socket_get_name($server, false));
$accepted = stream_socket_accept($server);
function squares() { for ($i = 0; ; $i++) yield $i * $i; }
$squares = squares();
$all = [];
for ($step = 0; $step < $rounds; $step++) {
    for ($i = 0; $i < 20000; $i++) $all[($step * 7919 + $i) % 50000] = md5("$step $i");
    ksort($all);
    $process = proc_open(['sort', '-r'], [['pipe', 'r'], ['pipe', 'w']], $pipes);
    fwrite($pipes[0], implode("\n", array_slice($all, 0, 500)));
    fclose($pipes[0]);
    $sorted = md5(stream_get_contents($pipes[1]));
    $code = proc_close($process);
    fwrite($pair[0], "text $step\n");
    fwrite($client, "over tcp $step\n");
    $read = [$accepted]; $none = null;
    stream_select($read, $none, $none, 5);
    posix_kill(getmypid(), SIGUSR1);
    echo $step, ' ', $sorted, ' ', $code, ' ', trim(fgets($pair[0])), ' ', trim(fgets($accepted)), ' ', count($all), ' ', $squares->current(), ' ', $usr, "\n";
    $squares->next();
    usleep(30000);
}
fclose($pair[0]);
pcntl_waitpid($child, $status);
echo pcntl_wexitstatus($status), "\n";
