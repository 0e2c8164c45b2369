# Threads, fibers, forked children, pipes, UNIX and TCP sockets, garbage.
require 'socket'
require 'digest'
require 'timeout'
require 'open3'
rounds = ARGV[0].to_i
$stdout.sync = true
server = TCPServer.new('127.0.0.1', 0)
Thread.new { loop { Thread.new(server.accept) { |c| while (line = c.gets); c.puts line.chomp.reverse; end } } }
client = TCPSocket.new('127.0.0.1', server.addr[1])
here, there = UNIXSocket.pair
echo = fork { here.close; while (line = there.gets); there.puts line.upcase; end; exit!(6) }
there.close
queue, results = Queue.new, Queue.new
workers = 3.times.map { Thread.new { while (n = queue.pop) != :end; results << [n, Digest::SHA256.hexdigest('x' * n * 1000)[0, 8]]; end } }
fiber = Fiber.new { a, b = 0, 1; loop { Fiber.yield a; a, b = b, a + b } }
rounds.times do |step|
  6.times { |i| queue << step * 6 + i }
  digests = 6.times.map { results.pop }.sort.map(&:last)
  client.puts "question #{step}"
  here.puts "text #{step}"
  out, status = Open3.capture2('tr a-z A-Z; exit 3', stdin_data: "some text #{step}\n" * 1000)
  late = begin
    Timeout.timeout(0.05) { sleep }
  rescue Timeout::Error
    'late'
  end
  garbage = (0..20_000).map { |i| "string #{i}" }.select { |s| s.end_with?('7') }.size
  GC.start if step % 10 == 0
  puts [step, digests.join(','), client.gets.chomp, here.gets.chomp, out.size, status.exitstatus, late, garbage, fiber.resume].join(' ')
  sleep 0.02
end
3.times { queue << :end }
workers.each(&:join)
here.close
puts Process.wait2(echo)[1].exitstatus
