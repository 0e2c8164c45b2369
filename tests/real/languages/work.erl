%% Processes and messages, timers, gen_tcp, ports, ets, garbage.
-module(work).
-export([main/1]).

main([Rounds]) ->
    process_flag(trap_exit, true),
    {ok, Listen} = gen_tcp:listen(0, [binary, {packet, line}, {active, false}, {ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Listen),
    spawn_link(fun() -> {ok, S} = gen_tcp:accept(Listen), serve(S) end),
    {ok, Client} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {packet, line}, {active, false}]),
    Table = ets:new(table, [ordered_set, public]),
    Workers = [spawn_link(fun() -> work(Table) end) || _ <- lists:seq(1, 20)],
    Cat = open_port({spawn, "cat"}, [{line, 200}, binary]),
    loop(1, list_to_integer(Rounds), Client, Table, Workers, Cat),
    [W ! stop || W <- Workers],
    port_close(Cat),
    io:format("~p entries~n", [ets:info(Table, size)]),
    halt(0).

serve(S) ->
    case gen_tcp:recv(S, 0) of
        {ok, Line} -> gen_tcp:send(S, string:uppercase(Line)), serve(S);
        {error, closed} -> ok
    end.

work(Table) ->
    receive
        {From, N} ->
            Sum = lists:sum([X * X rem 17 || X <- lists:seq(1, 2000 + N)]),
            ets:insert(Table, {N, Sum}),
            From ! {done, N, Sum},
            work(Table);
        stop -> ok
    end.

loop(Step, Rounds, _, _, _, _) when Step > Rounds -> ok;
loop(Step, Rounds, Client, Table, Workers, Cat) ->
    [W ! {self(), Step * 20 + I} || {I, W} <- lists:enumerate(Workers)],
    Sums = lists:sort([receive {done, N, Sum} -> {N, Sum} end || _ <- Workers]),
    ok = gen_tcp:send(Client, io_lib:format("question ~p~n", [Step])),
    {ok, Answer} = gen_tcp:recv(Client, 0),
    port_command(Cat, io_lib:format("line ~p~n", [Step])),
    Line = receive {Cat, {data, {eol, L}}} -> L end,
    erlang:send_after(40, self(), tick),
    receive tick -> ok end,
    Said = string:trim(os:cmd("echo from a shell " ++ integer_to_list(Step))),
    io:format("~p ~p ~s ~s ~s~n", [Step, erlang:phash2(Sums), string:trim(Answer), Line, Said]),
    loop(Step + 1, Rounds, Client, Table, Workers, Cat).
