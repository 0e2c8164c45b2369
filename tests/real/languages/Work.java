import java.io.*;
import java.net.*;
import java.nio.*;
import java.nio.channels.*;
import java.nio.charset.StandardCharsets;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;

/** Threads that make garbage for the collector, a pool, a timer, an NIO server with its clients, and child processes. */
public class Work {
    static final AtomicLong collected = new AtomicLong();

    /** Answers each line with its reverse. */
    static void serve(ServerSocketChannel server) {
        try (Selector selector = Selector.open()) {
            server.configureBlocking(false);
            server.register(selector, SelectionKey.OP_ACCEPT);
            while (true) {
                selector.select();
                for (Iterator<SelectionKey> keys = selector.selectedKeys().iterator(); keys.hasNext(); ) {
                    SelectionKey key = keys.next();
                    keys.remove();
                    if (key.isAcceptable()) {
                        SocketChannel client = server.accept();
                        client.configureBlocking(false);
                        client.register(selector, SelectionKey.OP_READ, ByteBuffer.allocate(4096));
                    } else {
                        SocketChannel client = (SocketChannel) key.channel();
                        ByteBuffer buffer = (ByteBuffer) key.attachment();
                        if (client.read(buffer) < 0) {
                            client.close();
                            continue;
                        }
                        String text = new String(buffer.array(), 0, buffer.position(), StandardCharsets.UTF_8);
                        int end = text.lastIndexOf('\n');
                        if (end >= 0) {
                            StringBuilder answer = new StringBuilder();
                            for (String line : text.substring(0, end).split("\n")) {
                                answer.append(new StringBuilder(line).reverse()).append('\n');
                            }
                            ByteBuffer out = ByteBuffer.wrap(answer.toString().getBytes(StandardCharsets.UTF_8));
                            while (out.hasRemaining()) client.write(out);
                            buffer.clear();
                            buffer.put(text.substring(end + 1).getBytes(StandardCharsets.UTF_8));
                        }
                    }
                }
            }
        } catch (IOException | ClosedSelectorException e) {
            System.out.println("server: " + e);
        }
    }

    /** Makes and drops objects, some of which live for a while. */
    static long churn(int seed) {
        Random random = new Random(seed);
        List<int[]> kept = new ArrayList<>();
        long sum = 0;
        for (int i = 0; i < 6000; i++) {
            int[] made = new int[random.nextInt(2000)];
            Arrays.setAll(made, j -> j ^ seed);
            if (i % 10 == 0) kept.add(made);
            if (kept.size() > 200) kept.clear();
            sum += made.length + (made.length > 0 ? made[made.length - 1] : 0);
        }
        return sum;
    }

    public static void main(String[] args) throws Exception {
        int rounds = Integer.parseInt(args[0]);
        ServerSocketChannel server = ServerSocketChannel.open().bind(new InetSocketAddress("127.0.0.1", 0));
        int port = ((InetSocketAddress) server.getLocalAddress()).getPort();
        Thread serving = new Thread(() -> serve(server), "server");
        serving.setDaemon(true);
        serving.start();
        ExecutorService pool = Executors.newFixedThreadPool(3);
        ScheduledExecutorService timer = Executors.newScheduledThreadPool(1);
        AtomicInteger ticks = new AtomicInteger();
        timer.scheduleAtFixedRate(ticks::incrementAndGet, 10, 10, TimeUnit.MILLISECONDS);
        ConcurrentHashMap<Integer, Long> all = new ConcurrentHashMap<>();
        try (Socket socket = new Socket("127.0.0.1", port);
             PrintWriter to = new PrintWriter(new OutputStreamWriter(socket.getOutputStream(), StandardCharsets.UTF_8), true);
             BufferedReader from = new BufferedReader(new InputStreamReader(socket.getInputStream(), StandardCharsets.UTF_8))) {
            for (int step = 0; step < rounds; step++) {
                List<Future<Long>> futures = new ArrayList<>();
                for (int i = 0; i < 6; i++) {
                    int seed = step * 6 + i;
                    futures.add(pool.submit(() -> { long sum = churn(seed); all.put(seed, sum); return sum; }));
                }
                long sum = 0;
                for (Future<Long> future : futures) sum += future.get();
                StringBuilder answers = new StringBuilder();
                for (int i = 0; i < 20; i++) {
                    to.println("question " + step + " " + i);
                    answers.append(from.readLine()).append(';');
                }
                String child = "";
                if (step % 10 == 0) {
                    Process process = new ProcessBuilder("sh", "-c", "read x; echo child $x; exit 5").start();
                    process.getOutputStream().write(("of " + step + "\n").getBytes());
                    process.getOutputStream().close();
                    child = new String(process.getInputStream().readAllBytes()).trim() + " " + process.waitFor();
                }
                byte[] random = new byte[4];
                new Random(step).nextBytes(random);
                System.out.println(step + " " + sum + " " + answers.toString().hashCode() + " " + Arrays.toString(random) + " " + child);
                Thread.sleep(20);
            }
        }
        pool.shutdown();
        timer.shutdownNow();
        System.out.println(pool.awaitTermination(10, TimeUnit.SECONDS) + " " + all.size() + " "
            + all.values().stream().mapToLong(Long::longValue).sum() + " " + (ticks.get() > rounds));
    }
}
