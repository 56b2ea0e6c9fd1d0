%% cowboy: one process per connection and one for the room, which hands each message to all of them.
-module(cowboy_chat).
-behaviour(cowboy_websocket).

-export([main/0, init/2, websocket_init/1, websocket_handle/2, websocket_info/2]).

-define(MAX_MESSAGE, 1048576).

main() ->
    {ok, _} = application:ensure_all_started(cowboy),
    register(room, spawn_link(fun() -> room(#{}) end)),
    Routes = cowboy_router:compile([{'_', [{"/[...]", ?MODULE, []}]}]),
    {ok, _} = cowboy:start_clear(
        chat,
        #{
            max_connections => infinity,
            num_acceptors => 16,
            socket_opts => [{ip, {127, 0, 0, 1}}, {port, 0}, {backlog, 65535}, {nodelay, true}]
        },
        #{env => #{dispatch => Routes}}
    ),
    io:format("listening 127.0.0.1 ~b~n", [ranch:get_port(chat)]).

%% Members by the monitor that tells of their end.
room(Members) ->
    receive
        {join, Pid} ->
            room(Members#{monitor(process, Pid) => Pid});
        {broadcast, _} = Message ->
            maps:foreach(fun(_, Pid) -> Pid ! Message end, Members),
            room(Members);
        {'DOWN', Monitor, process, _, _} ->
            room(maps:remove(Monitor, Members))
    end.

init(Request, State) ->
    {cowboy_websocket, Request, State, #{
        compress => false,
        idle_timeout => infinity,
        max_frame_size => ?MAX_MESSAGE
    }}.

websocket_init(State) ->
    room ! {join, self()},
    {ok, State}.

websocket_handle({Kind, _} = Frame, State) when Kind =:= binary; Kind =:= text ->
    room ! {broadcast, Frame},
    {ok, State};
websocket_handle(_, State) ->
    {ok, State}.

websocket_info({broadcast, Frame}, State) ->
    {[Frame], State}.
