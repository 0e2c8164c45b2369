(* System threads with a condition variable, forked children, pipes, a server on the loopback, garbage. *)
let rounds = int_of_string Sys.argv.(1)

let serve listening =
  let fd, _ = Unix.accept listening in
  let ic = Unix.in_channel_of_descr fd and oc = Unix.out_channel_of_descr fd in
  try
    while true do
      let line = input_line ic in
      output_string oc (String.uppercase_ascii line ^ "\n");
      flush oc
    done
  with End_of_file -> ()

let churn seed =
  let table = Hashtbl.create 16 in
  for i = 0 to 30_000 do
    Hashtbl.replace table (i * seed mod 1009) (String.make (i mod 40) 'x')
  done;
  Hashtbl.fold (fun k v sum -> sum + k + String.length v) table 0

let () =
  let listening = Unix.socket Unix.PF_INET Unix.SOCK_STREAM 0 in
  Unix.bind listening (Unix.ADDR_INET (Unix.inet_addr_loopback, 0));
  Unix.listen listening 5;
  ignore (Thread.create serve listening);
  let client = Unix.socket Unix.PF_INET Unix.SOCK_STREAM 0 in
  Unix.connect client (Unix.getsockname listening);
  let ic = Unix.in_channel_of_descr client and oc = Unix.out_channel_of_descr client in
  let lock = Mutex.create () and changed = Condition.create () and done_ = ref 0 and sum = ref 0 in
  for step = 1 to rounds do
    let work i = Thread.create (fun () ->
      let n = churn (step + i) in
      Mutex.lock lock; sum := !sum + n; incr done_; Condition.signal changed; Mutex.unlock lock) () in
    let threads = List.map work [1; 2; 3] in
    Mutex.lock lock;
    while !done_ < 3 * step do Condition.wait changed lock done;
    Mutex.unlock lock;
    List.iter Thread.join threads;
    output_string oc (Printf.sprintf "question %d\n" step); flush oc;
    let answer = input_line ic in
    let from, into = Unix.pipe () in
    let child = Unix.fork () in
    if child = 0 then begin
      ignore (Unix.write_substring into "from the child" 0 14);
      Unix._exit (step mod 7)
    end;
    Unix.close into;
    let buffer = Bytes.create 100 in
    let n = Unix.read from buffer 0 100 in
    Unix.close from;
    let code = match snd (Unix.waitpid [] child) with Unix.WEXITED code -> code | _ -> -1 in
    Thread.delay 0.03;
    Printf.printf "%d %d %s %s %d\n%!" step !sum answer (Bytes.sub_string buffer 0 n) code
  done
