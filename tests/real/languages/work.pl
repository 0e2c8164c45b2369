# Forked children with pipes, signals and alarms, sockets, regular expressions over a growing text.
use strict; use warnings;
use IO::Socket::INET; use IO::Select; use POSIX qw(:sys_wait_h); use Time::HiRes qw(sleep ualarm);
my $rounds = shift; $| = 1;
my $server = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1') or die;
my $serving = fork // die;
if (!$serving) {
    my $select = IO::Select->new($server);
    while (my @ready = $select->can_read) {
        for my $fh (@ready) {
            if ($fh == $server) { $select->add($server->accept); next }
            my $line = <$fh>;
            if (!defined $line) { $select->remove($fh); close $fh; next }
            exit 4 if $line eq "end\n";
            print $fh scalar reverse($line), "\n";
        }
    }
}
my $client = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $server->sockport) or die;
$client->autoflush(1);
my ($text, %seen, $alarms) = ('', (), 0);
$SIG{ALRM} = sub { $alarms++ };
for my $step (1 .. $rounds) {
    pipe(my $from, my $to) or die;
    my $child = fork // die;
    if (!$child) { close $from; print $to "$step squared is ", $step ** 2, "\n"; sleep 0.05; exit $step % 7 }
    close $to;
    my $said = <$from>; chomp $said;
    waitpid $child, 0; my $status = $? >> 8;
    print $client "question $step\n";
    my $answer = <$client> . <$client>; $answer =~ s/\n/|/g;
    $text .= "word$step " x 50;
    $seen{$_}++ for $text =~ /(word\d+)/g;
    ualarm 20_000; my $before = $alarms; select undef, undef, undef, 0.05 while $alarms == $before;
    my $listed = `printf 'a\\nb\\n' | sort -r | tr '\\n' ,`;
    print "$step $said $status $answer ", scalar(keys %seen), " $seen{word1} $listed $alarms\n";
}
print $client "end\n"; waitpid $serving, 0;
print "server ended with ", $? >> 8, "\n";
