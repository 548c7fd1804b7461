-- For spnegate-fcgid.conf. mod_fcgid copies what spnegate says to this server into the response, and
-- mod_headers cannot take it out of an error page again (a missing file, say). So it is taken out as
-- soon as mod_fcgid has read it; programs and the log have it from the environment.

local said = { "SPNEGATE", "REMOTE_USER", "AUTH_TYPE", "AUDIT_ID", "NEGOTIATE_REPLY" }

function hide(r)
  for _, variable in ipairs(said) do
    r.err_headers_out["Variable-" .. variable] = nil
  end
  return apache2.DECLINED
end
