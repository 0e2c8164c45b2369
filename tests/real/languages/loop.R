# A long loop with random numbers and a linear model, and forked workers of the package parallel.
library(parallel)
rounds <- as.integer(commandArgs(TRUE)[1])
set.seed(42, kind = "L'Ecuyer-CMRG")
state <- numeric(2000)
log <- file("log.txt", "w")
for (step in seq_len(rounds)) {
  state <- state + rnorm(2000)
  data <- data.frame(x = seq_along(state), y = state, g = gl(4, 500))
  model <- lm(y ~ x + g, data)
  sums <- mclapply(1:4, function(i) { Sys.sleep(0.05); sum(rnorm(1000, i)) }, mc.cores = 2)
  line <- sprintf("%d %.9g %.9g %s", step, sum(coef(model)), mean(state), paste(sprintf("%.9g", unlist(sums)), collapse = " "))
  cat(line, "\n")
  writeLines(line, log)
  if (step %% 10 == 0) { s <- system("echo from a shell; exit 3", intern = FALSE); cat("status", s, "\n"); gc() }
}
close(log)
