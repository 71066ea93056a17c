-- market_guard_text: what market_guard puts around the body of a call, and market_unguard looks for.

create or replace function market_guard_text(out first text, out last text)
language plpgsql
immutable
as $$
begin
  first := E'\nbegin\n  perform market_refuse();   -- while the market moves\n';
  last := E'end;\n';
end;
$$;

revoke execute on function market_guard_text() from public;

comment on function market_guard_text() is
  'Step of market_guard and market_unguard: the text before and behind the body of a call that looks first whether the market is sold in here.';
