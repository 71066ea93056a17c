-- market_unguard: gives the calls back what they were deployed with.

create or replace function market_unguard()
returns void
language plpgsql
as $$
declare
  v_text constant record := market_guard_text();
  v_call record;
begin
  for v_call in
    select pg_get_functiondef(routine.oid) as definition, routine.prosrc as body
      from checkout_functions as deployed
      join pg_proc as routine on routine.oid = to_regprocedure(deployed.signature)
     where position(v_text.first in routine.prosrc) > 0
  loop
    execute replace(v_call.definition, v_call.body,
                    replace(left(v_call.body, -length(v_text.last)), v_text.first, ''));
  end loop;
end;
$$;

revoke execute on function market_unguard() from public;

comment on function market_unguard() is
  'Step of a move that has ended or was taken back: undoes market_guard.';
