%% Climbs a known stack again and again, in Erlang and in C functions of the run time.
-module(climb).
-export([main/1, describe/0]).

%% Where the NIF is, and for how many seconds.
main([Nif, Seconds]) ->
    %% Everything that is called later is loaded, and so described.
    lists:foreach(fun code:ensure_loaded/1, [binary, io_lib_format, queue, ordsets, gb_trees, gb_sets, dict, sets, array, calendar, digraph, proplists]),
    ok = erlang:load_nif(Nif, 0),
    io:format("~p~n", [describe()]),
    End = erlang:monotonic_time(millisecond) + list_to_integer(Seconds) * 1000,
    climb(End, 0),
    halt(0, [{flush, true}]).

describe() -> not_loaded.

climb(End, Sum) ->
    case erlang:monotonic_time(millisecond) < End of
        true ->
            Next = bottom(Sum),
            climb(End, Next);
        false ->
            Sum
    end.

bottom(Sum) ->
    Above = middle(Sum),
    (Above + Sum) rem 65521.

middle(Sum) ->
    Above = descend(10, Sum),
    Hash = hash(Above),
    (Above bxor Hash) rem 65521.

%% Ten frames of itself, and a loop.
descend(0, Sum) ->
    Turned = turn(2000, Sum),
    Turned + 1;
descend(N, Sum) ->
    1 + descend(N - 1, Sum).

turn(0, Sum) -> Sum;
turn(N, Sum) -> turn(N - 1, (Sum * 31 + N) rem 65521).

%% In C for most of the time: erlang:md5/1 on the scheduler's stack.
hash(Sum) ->
    <<First:16, _/binary>> = erlang:md5(binary:copy(<<Sum:32>>, 4096)),
    First + 1.
