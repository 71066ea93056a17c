-- order_raise_state: the one way to say that an order or a line is past what was asked.

create or replace function order_raise_state(what text, id uuid, status text, allowed text[], lacks text default null)
returns void
language plpgsql
stable
as $$
begin
  raise exception '% % is %, and this takes one that is %',
      order_raise_state.what, order_raise_state.id, concat(order_raise_state.status, ' without ' || order_raise_state.lacks),
      concat(array_to_string(order_raise_state.allowed, ', '), ' with ' || order_raise_state.lacks)
    using errcode = 'OC012',
          detail = jsonb_build_object('what', order_raise_state.what, 'id', order_raise_state.id, 'status', order_raise_state.status,
                                      'allowed', order_raise_state.allowed),
          hint = 'Read the order again; somebody else may have been faster.';
end;
$$;

revoke execute on function order_raise_state(text, uuid, text, text[], text) from public;

comment on function order_raise_state(text, uuid, text, text[], text) is
  'Raises OC012 order_state_conflict, naming the state that was found and those that are allowed; of one that is in such a state, what it lacks in the message.';
